"""The workload and the measuring rules, as spec.json says them: types without defaults.

spec.schema.json is made from these types (`python -m shared_spec.dev.schemas`).
"""

import hashlib
import json
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from shared_spec import files, schema
from shared_spec.errors import UserError
from shared_spec.schema import ARRAY, Model, Problem, contradiction

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PhaseName = Literal["conformance", "ceiling", "training", "latency", "inference", "max_batch", "convergence"]
PHASES: tuple[PhaseName, ...] = get_args(PhaseName)
ProfileName = Literal["quick", "full"]


def _unique(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(items)) < len(items):
        raise PydanticCustomError("unique", "has non-unique elements")
    return items


UNIQUE = AfterValidator(_unique)
"""The schema says it too, where the field is declared."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Rgb = Annotated[tuple[Positive, Positive, Positive], ARRAY]


class ModelSpec(Model):
    """Vision transformer, pre-norm, qkv bias, exact GELU, no dropout (DeiT: arXiv 2012.12877, table 1)."""

    image_size: Count = Field(description="Side of the model's square input, pixels")
    patch_size: Count
    channels: Literal[3]
    classes: Count
    dim: Count
    depth: Count
    heads: Count
    mlp_dim: Count
    layer_norm_eps: Positive

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Sequence length: all patches and the class token."""
        return self.grid**2 + 1

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def forward_flops(self) -> int:
        """Floating-point operations of one image's forward pass: two per multiply-add of every matrix product.

        Normalisations, softmax, GELU and additions are left out, as in timm's and fvcore's counts.
        """
        n, d = self.tokens, self.dim
        block = n * d * 3 * d + 2 * n * n * d + n * d * d + 2 * n * d * self.mlp_dim
        patches = self.grid**2 * self.channels * self.patch_size**2 * d
        return 2 * (self.depth * block + patches + d * self.classes)

    @property
    def training_flops(self) -> int:
        """Forward plus backward, which multiplies by both transposes: three times the forward count."""
        return 3 * self.forward_flops


class InitSpec(Model):
    """How the initial weights are drawn."""

    seed: Seed
    std: Positive


class DataSpec(Model):
    """CIFAR-100, and what is done to an image before it is trained on."""

    image_size: Literal[32] = Field(description="Side of a dataset image, pixels")
    train_images: int = Field(ge=1, le=50000, description="The first so many training images are used")
    test_images: int = Field(ge=1, le=10000, description="The first so many test images are used")
    mean: Rgb = Field(description="Per-channel mean of images scaled to [0, 1]")
    std: Rgb = Field(description="Per-channel standard deviation of images scaled to [0, 1]")
    crop_padding: int = Field(ge=0, le=16, description="Zero padding on each side before the random crop, pixels")
    flip_probability: float = Field(ge=0, le=1)
    label_smoothing: Fraction


class OptimizerSpec(Model):
    """AdamW (arXiv 1711.05101, algorithm 2) with bias correction and global-norm clipping.

    Weight decay is decoupled, and of parameters of two or more dimensions, cls_token and pos_embed excepted.
    """

    beta1: Fraction
    beta2: Fraction
    eps: Positive
    weight_decay: Fraction
    clip_norm: Positive = Field(description="Bound on the global L2 norm of all gradients")


class ScheduleSpec(Model):
    """Linear warm-up, then cosine; peak = reference_lr x batch / reference_batch."""

    reference_lr: Positive
    reference_batch: Count
    initial_lr: Positive
    final_lr: Positive
    warmup_fraction: Fraction


class TrainingSpec(Model):
    """How long is trained, on how many images at once, and to which accuracy."""

    batch_size: Count
    epochs: Count
    eval_batch_size: Count
    evaluations_per_epoch: int = Field(
        ge=1, le=100, description="Evaluations of all test images in an epoch, evenly spaced; the last is at its end"
    )
    target_top1: float = Field(gt=0, le=1)
    seeds: Annotated[tuple[Seed, ...], ARRAY, UNIQUE] = Field(
        min_length=1,
        description="Seed of each repeat's data order and augmentation",
        json_schema_extra={"uniqueItems": True},
    )


class MeasuringSpec(Model):
    """The rules of measuring."""

    block_steps: Count = Field(description="Least steps between two synchronisations of a window")
    block_seconds: Positive = Field(description="Least time between two synchronisations of a window, seconds")
    steady_blocks: int = Field(ge=2, description="Warm-up ends when this many blocks in a row agree")
    steady_tolerance: Fraction = Field(description="... to within this fraction of their median")
    drift_tolerance: Fraction = Field(
        description="Largest change from first to last third of a window that is not called drift"
    )
    interval_tolerance: Fraction = Field(
        description="Widest 95 % interval (Student's t) of the mean of a phase's repeats, as a fraction of it, that "
        "asks for no more repeats"
    )
    loss_trace_steps: Count = Field(description="Losses of the first so many steps are kept")
    prefetch_batches: Count = Field(description="Batches that the host prepares ahead")


class Profile(Model):
    """How much is measured, never what."""

    phases: Annotated[tuple[PhaseName, ...], ARRAY, UNIQUE] = Field(
        min_length=1, description="Phases in the order they run", json_schema_extra={"uniqueItems": True}
    )
    repeats: Count = Field(description="Repeats of training and latency, each its own process and seed")
    max_repeats: Count = Field(
        description="They are added up to this many while an interval is wider than measuring.interval_tolerance"
    )
    inference_repeats: Count = Field(description="Repeats of inference, each its own process")
    convergence_repeats: Count = Field(description="Full trainings, each with its own seed")
    idle_seconds: Positive = Field(description="Time of measuring idle power before a training phase, seconds")
    ceiling_seconds: Positive = Field(description="Time for the matrix-product rate, seconds")
    warmup_max_seconds: Positive = Field(
        description="Warm-up gives up waiting for steady step times after this, seconds"
    )
    window_min_steps: Count = Field(description="Least steps in the throughput window")
    window_seconds: Positive = Field(description="Least length of the throughput window, seconds")
    step_samples: Count = Field(description="Steps timed one by one, each with a synchronisation")
    latency_samples: Count = Field(description="Least number of batch-1 samples")
    latency_seconds: Positive = Field(description="Least time of sampling, seconds")
    inference_seconds: Positive = Field(description="Least window per batch size, seconds")
    inference_max_batch: Count = Field(description="Largest inference batch tried")
    max_batch_steps: Count = Field(description="Full training steps that a batch has to survive to count as fitting")
    max_batch_seconds: Positive = Field(description="Longest a try of one batch may take, seconds")
    checkpoint_seconds: Positive = Field(description="Longest time between two checkpoints of a full training, seconds")


class Profiles(Model):
    """How much is measured, never what: not part of the fingerprint."""

    quick: Profile
    full: Profile


class Spec(Model):
    """The workload and the measuring rules: everything that spec.json says."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$(?!\n)")
    version: str = Field(pattern=r"^[0-9]+\.[0-9]+$(?!\n)")
    model: ModelSpec
    init: InitSpec
    data: DataSpec
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    training: TrainingSpec
    measuring: MeasuringSpec
    profiles: Profiles

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := tuple(_contradictions(self)):
            raise contradiction(*problems)
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is measured and how. The profiles, which say only how much, are left out.

        So is a single evaluation an epoch: specs had no other before version 1.1, and keep their fingerprint.
        """
        content = self._measured()
        if self.training.evaluations_per_epoch == 1:
            del content["training"]["evaluations_per_epoch"]
        return _sha256(content)

    @property
    def training_fingerprint(self) -> str:
        """SHA-256 of what is computed and how it is timed, whatever the version and however often it is evaluated.

        Evaluations change no weight and no loss: what two specs with this in common measure is the same, except for
        times that evaluations are part of.
        """
        content = self._measured()
        del content["version"], content["training"]["evaluations_per_epoch"]
        return _sha256(content)

    def _measured(self) -> dict[str, Any]:
        return {key: value for key, value in self.to_dict().items() if key != "profiles"}

    @property
    def is_standard(self) -> bool:
        """Whether this is the workload of the spec.json that came with the package."""
        return self.fingerprint == load_spec().fingerprint

    def profile(self, name: str) -> Profile:
        profile: Profile = getattr(self.profiles, name)
        return profile

    def steps_per_epoch(self, batch_size: int) -> int:
        """Training steps in an epoch; the images that do not fill a batch are left out of that epoch."""
        return self.data.train_images // batch_size

    def evaluation_steps(self, batch_size: int) -> tuple[int, ...]:
        """Steps of an epoch, counted from 1, after which the test images are evaluated; the last is its last.

        Where the steps cannot be divided evenly, an evaluation comes up to a step early. There are no more than steps.
        """
        steps, count = self.steps_per_epoch(batch_size), self.training.evaluations_per_epoch
        return tuple(sorted({max(1, steps * i // count) for i in range(1, count + 1)}))

    def learning_rate(self, step: int, batch_size: int) -> float:
        """Learning rate of training step `step` (from 0) at a global batch of `batch_size` images.

        Linear warm-up, then half a cosine (arXiv 1608.03983, eq. 5), peak proportional to the batch
        (arXiv 1706.02677). Steps past the schedule keep its final value.
        """
        schedule = self.schedule
        total = self.training.epochs * self.steps_per_epoch(batch_size)
        warmup = round(schedule.warmup_fraction * total)
        peak = schedule.reference_lr * batch_size / schedule.reference_batch
        if step < warmup:
            return schedule.initial_lr + (peak - schedule.initial_lr) * step / warmup
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return schedule.final_lr + (peak - schedule.final_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _contradictions(spec: Spec) -> Iterator[Problem]:
    """What no schema can say: fields that do not fit one another."""
    model, data, training = spec.model, spec.data, spec.training
    if model.image_size % model.patch_size:
        yield "/model/image_size", "is no multiple of /model/patch_size"
    if model.image_size % data.image_size:
        yield "/model/image_size", "is no multiple of /data/image_size"
    if model.dim % model.heads:
        yield "/model/dim", "is no multiple of /model/heads"
    if model.classes < 100:
        yield "/model/classes", "is less than the 100 classes of CIFAR-100"
    if training.batch_size > data.train_images:
        yield "/training/batch_size", "is more than /data/train_images"
    for name, profile in (("quick", spec.profiles.quick), ("full", spec.profiles.full)):
        if profile.max_repeats < profile.repeats:
            yield f"/profiles/{name}/max_repeats", f"is less than /profiles/{name}/repeats"
        if len(training.seeds) < max(profile.max_repeats, profile.inference_repeats, profile.convergence_repeats):
            yield "/training/seeds", f"has fewer entries than /profiles/{name} has repeats"


def parse_spec(content: Any, source: str) -> Spec:
    """Build a Spec from parsed JSON; `source` names it in errors.

    Raises:
        UserError: a key is unknown or missing, a value has the wrong type or is out of range, or fields contradict.
    """
    try:
        return schema.parse(Spec, content)
    except schema.Invalid as invalid:
        raise UserError(f"{invalid.of(source)}; compare with the spec.json of shared-spec.") from None


def load_spec(path: Path | None = None) -> Spec:
    """Read a spec file; None means the standard one.

    Raises:
        UserError: the file cannot be read or does not say a valid spec.
    """
    if path is not None:
        return parse_spec(files.read(path), str(path))
    text = resources.files("shared_spec").joinpath("workload", "spec.json").read_text(encoding="utf-8")
    return parse_spec(files.loads(text), "spec.json")
