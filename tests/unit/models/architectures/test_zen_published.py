"""Published checkpoints of ZEN1 and ZEN2 fit: names, shapes and sizes, on the meta device."""

from __future__ import annotations

import pytest
import torch

from pyfsb.models.architectures import zen1, zen2
from pyfsb.models.key_maps import check_keys

MODULES = {"zen1": zen1, "zen2": zen2}


def published(name: str, hidden: int, layers: int, num_ngrams: int) -> dict[str, list[int]]:
    """Names and shapes of a pretraining checkpoint, written out by hand."""
    inner = 4 * hidden
    shapes = {
        "cls.predictions.bias": [21128], "cls.seq_relationship.weight": [2, hidden],
        "cls.seq_relationship.bias": [2], "bert.pooler.dense.weight": [hidden, hidden],
        "bert.pooler.dense.bias": [hidden], "cls.predictions.decoder.weight": [21128, hidden],
        "cls.predictions.transform.dense.weight": [hidden, hidden],
        "cls.predictions.transform.dense.bias": [hidden],
    }  # fmt: skip
    norms = ["cls.predictions.transform"]
    for part, num_rows in (("embeddings", 21128), ("word_embeddings", num_ngrams)):
        shapes[f"bert.{part}.word_embeddings.weight"] = [num_rows, hidden]
        shapes[f"bert.{part}.token_type_embeddings.weight"] = [2, hidden]
        norms.append(f"bert.{part}")
    if name == "zen1":
        shapes["bert.embeddings.position_embeddings.weight"] = [512, hidden]
    for kind, number in (("layer", layers), ("word_layers", 6)):
        for layer in (f"bert.encoder.{kind}.{i}" for i in range(number)):
            for dense, (rows_, columns) in {
                "attention.self.query": (hidden, hidden), "attention.self.key": (hidden, hidden),
                "attention.self.value": (hidden, hidden),
                "attention.output.dense": (hidden, hidden),
                "intermediate.dense": (inner, hidden), "output.dense": (hidden, inner),
            }.items():  # fmt: skip
                shapes[f"{layer}.{dense}.weight"] = [rows_, columns]
                shapes[f"{layer}.{dense}.bias"] = [rows_]
            norms += [f"{layer}.attention.output", f"{layer}.output"]
            if name == "zen2":
                own = f"{layer}.attention.self"
                shapes |= {f"{own}.r_{x}_bias": [hidden // 64, 64] for x in "rw"}
                shapes[f"{own}.position_embedding.weights"] = [1201, 64]
                shapes[f"{own}.position_embedding._float_tensor"] = [1]
    # Norms as TensorFlow names them: some checkpoints were converted.
    for norm in norms:
        shapes |= {f"{norm}.LayerNorm.{x}": [hidden] for x in ("gamma", "beta")}
    return shapes


@pytest.mark.parametrize(
    ("name", "hidden", "layers", "num_ngrams", "millions"),
    [("zen1", 768, 12, 104089, 224), ("zen2", 768, 12, 261361, 345), ("zen2", 1024, 24, 261361, 668)],
)  # fmt: skip
def test_published_shapes_fit(
    name: str, hidden: int, layers: int, num_ngrams: int, millions: int
) -> None:
    module = MODULES[name]
    config = module.ARCHITECTURE.config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden, word_size=num_ngrams,
    )  # fmt: skip
    with torch.device("meta"):
        model = getattr(module, f"Z{name[1:]}ForPreTraining")(config)
        shapes = published(name, hidden, layers, num_ngrams)
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    converted = module.ARCHITECTURE.key_map.convert(state)
    tied = ["cls.predictions.decoder.bias"]
    check_keys(converted, model.state_dict(), optional=tied, source="published")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.01)
