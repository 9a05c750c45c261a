"""What the tests of Longformer and Zhouwenwang share: weights of cases, published shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyfsb.models.key_maps import KeyMap, check_keys
from tests.helpers.reference import ABSOLUTE_TOLERANCE, RELATIVE_LOSS_TOLERANCE, ReferenceCase


def load_weights(
    model: nn.Module, case: ReferenceCase, key_map: KeyMap, rename: Callable[[str], str | None]
) -> None:
    """Load a case's tensors under the original names; `rename` says where a case's key belongs."""
    state = {}
    for key, tensor in key_map.convert(case.weights()).items():
        if (ours := rename(key)) is not None:
            state[ours] = tensor
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    check_keys(state, model.state_dict(), optional=tied, source=str(case.folder))
    model.load_state_dict(state, strict=False)
    model.tie_weights()


def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare all outputs of a case by name."""
    assert set(expected) <= set(found), sorted(set(expected) - set(found))
    for name, tensor in expected.items():
        is_loss = name.endswith("loss")
        torch.testing.assert_close(
            found[name].detach(),
            tensor,
            rtol=RELATIVE_LOSS_TOLERANCE if is_loss else 0,
            atol=0 if is_loss else ABSOLUTE_TOLERANCE,
            msg=f"{name}: off by {float((found[name].detach() - tensor).abs().max())}",
        )


def check_published_shapes(
    build: Callable[[], nn.Module], shapes: dict[str, list[int]], key_map: KeyMap
) -> None:
    """Send tensors of published names and full sizes through a key map into a module."""
    with torch.device("meta"):
        model = build()
        published = {name: torch.empty(sizes) for name, sizes in shapes.items()}
    ours = key_map.convert(published)
    check_keys(ours, model.state_dict(), source="published names")
    assert len(ours) == len(model.state_dict())


def layer_shapes(
    prefix: str, config: dict[str, int], norms: tuple[str, ...]
) -> dict[str, list[int]]:
    """Return the published names and shapes of all layers of a BERT-like stack with RoPE."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    parts: dict[str, list[int]] = {}
    for name in ("query", "key", "value"):
        parts[f"attention.self.{name}.weight"] = [hidden, hidden]
        parts[f"attention.self.{name}.bias"] = [hidden]
    parts["attention.self.rope_emb.div_term"] = [hidden // config["num_attention_heads"] // 2]
    for name, sizes in (
        ("attention.output.dense", [hidden, hidden]),
        ("intermediate.dense", [inner, hidden]),
        ("output.dense", [hidden, inner]),
    ):
        parts |= {f"{name}.weight": sizes, f"{name}.bias": sizes[:1]}
    for name in norms:
        parts |= {f"{name}.weight": [hidden], f"{name}.bias": [hidden]}
    return {
        f"{prefix}{number}.{name}": sizes
        for number in range(config["num_hidden_layers"])
        for name, sizes in parts.items()
    }


def draw_ids(rows: int, length: int, *, vocabulary: int = 60, seed: int = 0) -> Tensor:
    """Return ids that are no special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, vocabulary, (rows, length), generator=generator)


def randomise(model: Any, seed: int = 3) -> Any:
    """Give all parameters values that are not small, biases too; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()
