# SPDX-License-Identifier: Apache-2.0
"""The sections of a run spec that say how a model is trained.

Each field with its unit, its range and the reason of its default. Gathered by
`pyfsb.config.run_spec`; never reads a file.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from pyfsb.schema import Schema

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]

PROFILES: Final[dict[str, dict[str, bool | int]]] = {
    "z1": {"zero_stage": 1, "offload_optimizer": False, "offload_parameters": False},
    "z2": {"zero_stage": 2, "offload_optimizer": False, "offload_parameters": False},
    "z2-offload": {"zero_stage": 2, "offload_optimizer": True, "offload_parameters": False},
    "z3-offload": {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
}
"""What the profiles set: those that the released workloads were trained with."""


class OptimizerSpec(Schema):
    """AdamW and its schedule."""

    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate; 1e-4 is the Erlangshen recipe."""
    min_learning_rate: Annotated[float, Field(ge=0.0)] = 0.0
    """Where a falling schedule ends, and what it keeps afterwards."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """On matrices and embeddings only: never on biases and norm weights."""
    betas: tuple[Ratio, Ratio] = (0.9, 0.999)
    """Decay rates of the moments."""
    epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""
    max_gradient_norm: PositiveFloat = 1.0
    """Gradients are clipped to this global norm."""
    schedule: Literal["linear", "cosine", "polynomial", "inverse_sqrt", "wsd", "constant"] = (
        "linear"
    )
    """Course of the learning rate after warm-up. linear, cosine and polynomial fall to
    min_learning_rate, inverse_sqrt falls with the root of the step, wsd (warm-up, stable, decay)
    stays and falls over the last cooldown_ratio of the steps, constant stays."""
    warmup_ratio: Ratio = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps of that rise. None takes warmup_ratio."""
    decay_steps: PositiveInt | None = None
    """Step at which a falling schedule reaches its end. None: the last one."""
    power: PositiveFloat = 1.0
    """Exponent of schedule polynomial."""
    cooldown_ratio: Ratio = 0.1
    """Share of the steps over which schedule wsd falls (Hu et al. 2024 take 0.1)."""

    @model_validator(mode="after")
    def _ends_below_peak(self) -> Self:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate = {self.min_learning_rate} is above learning_rate = "
                f"{self.learning_rate}; it must not be"
            )
        return self


class BatchSpec(Schema):
    """Batch sizes in tokens: a step holds as many whole samples as fit."""

    tokens: PositiveInt = 32768
    """Tokens of one optimizer step over all processes, special tokens included, padding not."""
    micro_tokens: PositiveInt = 4096
    """Tokens of one forward pass of one process at most, padding included."""
    layout: Literal["flat", "packed", "buckets", "padded"] | None = None
    """How samples lie in a forward pass. flat: end to end, attention within each; packed: flat,
    filled up to exactly micro_tokens (static shapes for compilers); buckets: padded rows of about
    equal length; padded: rows as they come. None takes flat where the architecture has it, else
    buckets."""


class SpikeSpec(Schema):
    """What happens when a step's loss or gradients are not usable."""

    max_norm_ratio: PositiveFloat | None = 10.0
    """A gradient norm above this many times the median of the steps before it, and above
    optimizer.max_gradient_norm, is a spike: the step is left out. None: only values that are not
    finite are."""
    num_reference_steps: PositiveInt = 64
    """Steps whose median norm a spike is measured against; none is seen before as many."""
    max_skipped_steps: PositiveInt = 4
    """Steps left out in a row before training goes back to the last saved state."""
    max_rewinds: Annotated[int, Field(ge=0)] = 2
    """Times it goes back before it ends with an error."""


class LoraSpec(Schema):
    """Low-rank adaptation: small matrices are trained beside frozen weights (Hu et al. 2021)."""

    rank: PositiveInt = 16
    """Rank of the update."""
    alpha: PositiveFloat = 32.0
    """The update is scaled by alpha over rank."""
    dropout: Ratio = 0.0
    """Of the adapters' inputs."""
    targets: tuple[str, ...] = ()
    """Ends of the names of the linear layers to adapt. Empty takes the attention's."""


class EnergySpec(Schema):
    """What is stated about power and price; the record carries figure and statement."""

    watts_per_device: PositiveFloat | None = None
    """Mean power of one device with its share of the host. None: no energy is given."""
    kg_co2e_per_kwh: Annotated[float, Field(ge=0.0)] | None = None
    """Of the grid. None: no emissions are given."""
    price_per_device_hour: Annotated[float, Field(ge=0.0)] | None = None
    """In any one currency. None: no cost is given."""


class TrainingSpec(Schema):
    """How long to train, what to keep and what to watch."""

    max_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimizer steps at most. None: num_epochs alone decides; 0 keeps the first weights."""
    num_epochs: PositiveInt = 1
    """Passes over the samples at most."""
    checkpoint_every_steps: PositiveInt = 500
    """Steps between saved training states; also at the end and on SIGTERM."""
    keep_last: PositiveInt = 2
    """Saved training states to keep."""
    keep_every_steps: PositiveInt | None = None
    """Saved states of multiples of this step are kept for good. None keeps none."""
    validation_samples: Annotated[int, Field(ge=0)] = 0
    """Samples at the end of the corpus that are never trained on; their loss is measured."""
    validate_every_steps: PositiveInt | None = None
    """Steps between two such measurements. None measures once, at the end."""
    patience: PositiveInt | None = None
    """Measurements without a better validation loss before training ends early; the best weights
    are exported. None never ends early."""
    spikes: SpikeSpec = SpikeSpec()
    """What happens when a step's loss or gradients are not usable."""
    lora: LoraSpec | None = None
    """Train low-rank adapters only; they are merged into the exported weights. None trains all."""
    hang_timeout_seconds: PositiveFloat | None = 1800.0
    """A step that takes longer ends the process with all stacks in the log. None waits."""
    energy: EnergySpec = EnergySpec()
    """Stated power and price."""
    mlflow_uri: str | None = None
    """MLflow tracking server or folder to send metrics to; needs mlflow installed. None: none."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port of a Prometheus endpoint on 127.0.0.1, 0 for any. None writes metrics.prom only."""

    @model_validator(mode="after")
    def _patience_has_a_measure(self) -> Self:
        if self.patience and not (self.validation_samples and self.validate_every_steps):
            raise ValueError("patience needs validation_samples and validate_every_steps")
        return self


class ParallelismSpec(Schema):
    """Processes of one machine and how a model is spread over them."""

    num_processes: PositiveInt = 1
    """Training processes, one a device (on CPU: one a core or two); a cluster sets its own."""
    profile: Literal["z1", "z2", "z2-offload", "z3-offload"] | None = None
    """A name for zero_stage and both offloads together. None: they stand as given."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What ZeRO shards: 0 nothing, 1 optimizer state, 2 gradients too, 3 parameters too."""
    offload_optimizer: bool = False
    """Keep fp32 weights and moments in the host's memory and update them there; ZeRO 1 to 3."""
    offload_parameters: bool = False
    """Keep the parameters in the host's memory too; ZeRO 3."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Of forward and backward; weights are updated in fp32. None: bf16 on devices that have it,
    fp32 on CPUs, fp16 elsewhere."""
    activation_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again."""
    threads_per_process: PositiveInt | None = None
    """CPU threads of each process. None shares the cores out evenly."""

    @model_validator(mode="before")
    @classmethod
    def _unfold_profile(cls, value: Any) -> Any:
        profile = value.get("profile") if isinstance(value, dict) else None
        if profile not in PROFILES:
            return value
        for key, wanted in PROFILES[profile].items():
            if value.get(key, wanted) != wanted:
                raise ValueError(
                    f"profile {profile} means {key} = {wanted}, not {value[key]}; give one of them"
                )
        return {**value, **PROFILES[profile]}

    @model_validator(mode="after")
    def _offload_needs_shards(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("offload_parameters needs zero_stage 3")
        return self
