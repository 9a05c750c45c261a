# SPDX-License-Identifier: Apache-2.0
"""Two published checkpoints become one folder, pickles through the one door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from pyfsb.data.vocabulary import write_tokenizer
from pyfsb.errors import ConfigError
from pyfsb.models.hub import hash_sha256
from pyfsb.models.importing_towers import import_towers
from tests.unit.models.architectures.test_taiyi_clip import released_towers

NAME = "Taiyi-CLIP-Roberta-102M-Chinese"
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"中国人民大学北京的首都好坏很不是我们在，。",
]


def test_two_folders_become_one(tmp_path: Path) -> None:
    text, clip = released_towers()
    text.config.save_pretrained(tmp_path / "text")
    torch.save(text.state_dict(), tmp_path / "text" / "pytorch_model.bin")
    write_tokenizer(PIECES, tmp_path / "text", lowercase=True)
    clip.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text('{"do_normalize": false}')
    target = tmp_path / "made"
    record = import_towers(str(tmp_path / "text"), str(tmp_path / "clip"), NAME, target)
    assert [file.sha256 for file in record.weights_read] == [
        hash_sha256(tmp_path / "text" / "pytorch_model.bin"),
        hash_sha256(tmp_path / "clip" / "model.safetensors"),
    ]
    assert record.network in ("namespace", "sockets")
    assert not record.missing
    assert "text_projection.weight" in record.dropped
    assert json.loads((target / "import.json").read_text())["source"] == record.source
    assert (target / "preprocessor_config.json").is_file()
    model = AutoModel.from_pretrained(target).eval()
    ids = torch.arange(5, 15).view(2, 5)
    with torch.no_grad():
        torch.testing.assert_close(model.get_text_features(ids), text(ids).logits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "made", "text"]


def test_other_models_have_no_image_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a bert; only a taiyi-clip"):
        import_towers("a", "b", "Erlangshen-Roberta-110M-NLI", tmp_path / "made")
