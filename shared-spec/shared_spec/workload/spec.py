"""The workload and the measuring rules as frozen dataclasses, read from spec.json; no defaults here."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from shared_spec import files
from shared_spec.errors import UserError

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class ModelSpec:
    """Vision transformer, pre-norm, qkv bias, exact GELU, no dropout (DeiT: arXiv 2012.12877, table 1)."""

    image_size: int
    patch_size: int
    channels: int
    classes: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    layer_norm_eps: float

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


@dataclass(frozen=True)
class InitSpec:
    seed: int
    std: float


@dataclass(frozen=True)
class DataSpec:
    image_size: int
    train_images: int
    test_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip_probability: float
    label_smoothing: float


@dataclass(frozen=True)
class OptimizerSpec:
    """AdamW (arXiv 1711.05101, algorithm 2) with bias correction and global-norm clipping."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip_norm: float


@dataclass(frozen=True)
class ScheduleSpec:
    reference_lr: float
    reference_batch: int
    initial_lr: float
    final_lr: float
    warmup_fraction: float


@dataclass(frozen=True)
class TrainingSpec:
    batch_size: int
    epochs: int
    eval_batch_size: int
    target_top1: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class MeasuringSpec:
    block_steps: int
    block_seconds: float
    steady_blocks: int
    steady_tolerance: float
    drift_tolerance: float
    interval_tolerance: float
    loss_trace_steps: int
    prefetch_batches: int


@dataclass(frozen=True)
class Profile:
    phases: tuple[str, ...]
    repeats: int
    max_repeats: int
    convergence_repeats: int
    idle_seconds: float
    ceiling_seconds: float
    warmup_max_seconds: float
    window_min_steps: int
    window_seconds: float
    step_samples: int
    latency_samples: int
    latency_seconds: float
    inference_seconds: float
    inference_max_batch: int
    max_batch_steps: int
    max_batch_seconds: float
    checkpoint_seconds: float


@dataclass(frozen=True)
class Profiles:
    quick: Profile
    full: Profile


@dataclass(frozen=True)
class Spec:
    """Everything that spec.json says; field meanings and ranges are in spec.schema.json."""

    name: str
    version: str
    model: ModelSpec
    init: InitSpec
    data: DataSpec
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    training: TrainingSpec
    measuring: MeasuringSpec
    profiles: Profiles

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values, as it would stand in a file."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return content

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is measured and how. The profiles, which say only how much, are left out."""
        content = {key: value for key, value in self.to_dict().items() if key != "profiles"}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

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


def _build(kind: Any, value: Any) -> Any:
    """`value`, already known to fit the schema, as `kind`: a dataclass, a tuple or a scalar."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _build(hints[name], value[name]) for name in hints})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], item) for item in value)
    return kind(value)


def _contradictions(spec: Spec) -> list[str]:
    """What a schema cannot say: fields that do not fit one another."""
    model, data, training = spec.model, spec.data, spec.training
    found = []
    if model.image_size % model.patch_size:
        found.append("/model/image_size is no multiple of /model/patch_size")
    if model.image_size % data.image_size:
        found.append("/model/image_size is no multiple of /data/image_size")
    if model.dim % model.heads:
        found.append("/model/dim is no multiple of /model/heads")
    if model.classes < 100:
        found.append("/model/classes is less than the 100 classes of CIFAR-100")
    if training.batch_size > data.train_images:
        found.append("/training/batch_size is more than /data/train_images")
    for name, profile in (("quick", spec.profiles.quick), ("full", spec.profiles.full)):
        if profile.max_repeats < profile.repeats:
            found.append(f"/profiles/{name}/max_repeats is less than /profiles/{name}/repeats")
        if len(training.seeds) < max(profile.max_repeats, profile.convergence_repeats):
            found.append(f"/training/seeds has fewer entries than /profiles/{name} has repeats")
    return found


def parse_spec(content: Any, source: str) -> Spec:
    """Build a Spec from parsed JSON; `source` names it in errors.

    Raises:
        UserError: a key is unknown or missing, a value has the wrong type or is out of range, or fields contradict.
    """
    found = [f"{pointer}: {message}" for pointer, message in files.problems(content, "workload/spec.schema.json")]
    if not found:
        spec: Spec = _build(Spec, content)
        found = _contradictions(spec)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"{source}: {found[0]}{more}; compare with the spec.json of shared-spec.")
    return spec


def load_spec(path: Path | None = None) -> Spec:
    """Read a spec file; None means the standard one.

    Raises:
        UserError: the file cannot be read or does not say a valid spec.
    """
    if path is not None:
        return parse_spec(files.read(path), str(path))
    text = resources.files("shared_spec").joinpath("workload", "spec.json").read_text(encoding="utf-8")
    return parse_spec(files.loads(text), "spec.json")
