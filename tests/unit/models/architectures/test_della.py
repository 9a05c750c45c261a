"""DELLA against the original module; conditions, padding, and writing from latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pyfsb.config import Family
from pyfsb.models.architectures import find_architecture
from pyfsb.models.architectures.della import ARCHITECTURE, DellaForCausalLM
from pyfsb.models.architectures.della_latents import DellaConfig
from pyfsb.models.key_maps import check_keys
from pyfsb.models.loading import count_parameters
from tests.helpers.reference import (
    ABSOLUTE_TOLERANCE,
    RELATIVE_LOSS_TOLERANCE,
    ReferenceCase,
    reference_cases,
)

TINY = {
    "vocab_size": 60, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 24, "latent_dim": 6,
    "initializer_range": 0.5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def tiny(**changes: Any) -> DellaForCausalLM:
    torch.manual_seed(3)
    return DellaForCausalLM(DellaConfig(**{**TINY, **changes})).eval()


def ids(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 60, shape, generator=torch.Generator().manual_seed(seed))


@reference_cases("della")
def test_every_output_of_the_original(case: ReferenceCase) -> None:
    config = DellaConfig(**case.config["model"], legacy_skips_first_token=True)
    model = DellaForCausalLM(config).eval()
    state = ARCHITECTURE.key_map.convert(case.weights())
    check_keys(state, model.state_dict(), optional=model.all_tied_weights_keys, source="case")
    model.load_state_dict(state, strict=False)
    given = case.inputs()
    text = given["inputs"]
    labels = text.masked_fill(text == config.pad_token_id, -100)
    condition = given.get("cond_inputs", text[:, :0])
    with torch.no_grad():
        output = model(
            torch.cat([condition, text], dim=1),
            labels=torch.cat([torch.full_like(condition, -100), labels], dim=1),
            condition_length=condition.shape[1],
        )
    latents, expected = output.latents, case.outputs()
    found = {
        "logits": output.logits,
        "kl_loss": output.kl_loss,
        "reconstruction_loss": output.reconstruction_loss,
    }
    for name, layers in (
        ("encoder_hidden_states", latents.hidden_states),
        ("layer_kl_loss", output.layer_kl_loss),
        ("posterior_latents", latents.posterior_BLD.unbind(1)),
        ("prior_latents", latents.prior_BLD.unbind(1)),
        ("posterior_mean_logvar", latents.posterior),
        ("prior_mean_logvar", latents.prior),
    ):
        found |= {f"{name}.{number}": tensor for number, tensor in enumerate(layers)}
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        if "loss" in name:
            relative = ((found[name] - tensor) / tensor).abs().max()
            assert relative <= RELATIVE_LOSS_TOLERANCE, (name, float(relative))
        else:
            deviation = (found[name] - tensor).abs().max()
            assert deviation <= ABSOLUTE_TOLERANCE, (name, float(deviation))


def test_the_first_token_behind_a_condition_has_a_loss() -> None:
    text = ids(1, 9)
    labels = text.clone()
    labels[:, :4] = -100
    losses = {}
    for is_legacy in (False, True):
        model = tiny(CVAE=True, legacy_skips_first_token=is_legacy)
        with torch.no_grad():
            output = model(text, labels=labels, condition_length=4)
        losses[is_legacy] = float(output.reconstruction_loss) * 5
    with torch.no_grad():
        first = -output.logits[0, 3].log_softmax(-1)[text[0, 4]]
    assert losses[False] - losses[True] == pytest.approx(float(first), rel=1e-4)


def test_padding_has_no_influence() -> None:
    model, text = tiny(), ids(1, 6)
    padded = torch.nn.functional.pad(text, (0, 4), value=7)
    mask = torch.nn.functional.pad(torch.ones_like(text), (0, 4))
    with torch.no_grad():
        alone = model(text, labels=text)
        wide = model(padded, mask, labels=padded.masked_fill(mask == 0, -100))
        unmasked = model(padded, labels=padded)
    assert torch.allclose(alone.latents.posterior_BLD, wide.latents.posterior_BLD, atol=1e-5)
    assert float(alone.loss) == pytest.approx(float(wide.loss), rel=1e-4)
    assert not torch.allclose(alone.latents.posterior_BLD, unmasked.latents.posterior_BLD)


def test_a_future_token_changes_earlier_logits_only_through_the_latents() -> None:
    model, text = tiny(), ids(1, 8)
    changed = text.clone()
    changed[0, 5:] = ids(1, 3, seed=9)
    latents = torch.randn(1, 3, 6)
    with torch.no_grad():
        fixed = [model(row, latents=latents).logits[:, :5] for row in (text, changed)]
        own = [model(row, labels=row).logits[:, :5] for row in (text, changed)]
    assert torch.equal(*fixed)
    assert not torch.allclose(*own)


@pytest.mark.parametrize("is_conditional", [False, True])
def test_generation_with_a_cache_equals_the_one_without(is_conditional: bool) -> None:
    model, prompt = tiny(is_conditional=is_conditional), ids(2, 4)
    for latents in (None, torch.randn(2, 3, 6)):
        for num_beams in (1, 3):
            written = [
                model.generate(
                    prompt, latents=latents, max_new_tokens=8, do_sample=False,
                    use_cache=use_cache, num_beams=num_beams,
                )
                for use_cache in (True, False)
            ]  # fmt: skip
            assert torch.equal(written[0], written[1])
            assert written[0].shape[1] > 6


def test_a_text_is_written_from_its_latents() -> None:
    model = tiny()
    latents = [model.model.encode(ids(1, 8, seed=seed)).posterior_BLD for seed in (1, 2)]
    begin = torch.tensor([[1]])
    written = [model.generate(begin, latents=each, max_new_tokens=8) for each in latents]
    with torch.no_grad():
        logits = model(written[0][:, :-1], latents=latents[0]).logits
    assert torch.equal(logits.argmax(-1), written[0][:, 1:])
    assert written[0].tolist() != written[1].tolist()


def test_what_is_foreseen_is_the_prior() -> None:
    model, text = tiny(is_conditional=True), ids(2, 9)
    with torch.no_grad():
        foreseen = model.model.foresee(text[:, :4])
        prior = model.model.encode(text, condition_length=4).prior_BLD
    assert torch.allclose(foreseen[:, 0], prior[:, 0], atol=1e-6), "above, the posterior enters"
    assert not tiny().model.foresee(text).any(), "without a condition its mean is 0"


def test_latents_are_drawn_in_training_only() -> None:
    model, text = tiny(), ids(1, 6)
    with torch.no_grad():
        means = [model(text, labels=text).latents.posterior_BLD for _ in range(2)]
        drawn = [model(text, labels=text, samples=True).latents.posterior_BLD for _ in range(2)]
        foreseen = [model.model.foresee(text, samples=True) for _ in range(2)]
    assert torch.equal(*means)
    assert not torch.equal(*drawn)
    assert not torch.equal(*foreseen)


def test_the_divergence_is_that_of_torch() -> None:
    with torch.no_grad():
        latents = tiny().model.encode(ids(2, 6))
    for found, posterior, prior in zip(
        latents.divergences(), latents.posterior, latents.prior, strict=True
    ):
        mean, log_var = posterior.chunk(2, -1)
        prior_mean, prior_log_var = prior.chunk(2, -1)
        expected = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, (0.5 * log_var).exp()),
            torch.distributions.Normal(prior_mean, (0.5 * prior_log_var).exp()),
        ).sum(-1)
        assert torch.allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(("is_conditional", "length"), [(True, 0), (False, 3)])
def test_a_condition_is_there_or_not(is_conditional: bool, length: int) -> None:
    with pytest.raises(ValueError, match=f"the condition has {length} tokens"):
        tiny(is_conditional=is_conditional).model.encode(ids(1, 6), condition_length=length)


def test_it_is_registered_and_survives_a_folder(tmp_path: Path) -> None:
    found = find_architecture("della")
    assert found is ARCHITECTURE
    assert found.classes[Family.GENERATE] is DellaForCausalLM
    model, text = tiny(), ids(2, 7)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(loaded(text, labels=text).loss, model(text, labels=text).loss)
    assert loaded.lm_head.weight is loaded.model.decoder.wte.weight
    assert float(model.model.pooling[0].attention_weights.detach().std()) > 0.2, (
        "own weights are drawn"
    )


def test_it_learns() -> None:
    model, text = tiny().train(), ids(4, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        loss = model(text, labels=text, kl_weight=0.01).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0] * 0.7
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_full_size_is_near_its_name() -> None:
    with torch.device("meta"):
        model = DellaForCausalLM(DellaConfig(vocab_size=21130, n_positions=512))
    assert count_parameters(model) == pytest.approx(226e6, rel=0.1)
