"""timm's DeiT-small, trained as timm's own scripts train it, as a peer of the implementations here.

A step starts from the same uint8 images as ours: normalised and upscaled by PyTorch's own operators on the device. A
duel (shared_spec.dev.peers) starts this script, in an environment that has timm.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import click
import numpy as np

from shared_spec.backend import Batch, Handle
from shared_spec.dev import peers
from shared_spec.workload.spec import Spec


class Timm:
    """shared_spec.dev.peers.Contender: `deit_small_patch16_224`, eager or under torch.compile.

    `frozen` is for inference on a CPU: weights become constants, which Inductor packs once.
    """

    def __init__(self, spec: Spec, device: str, precision: str, compiled: bool, frozen: bool) -> None:
        import timm
        import torch
        from timm.optim import param_groups_weight_decay

        if frozen:
            from torch._inductor import config

            config.freezing = True
        self.torch, self.timm_version = torch, timm.__version__
        self.compile_mode = "torch.compile, frozen" if frozen else "torch.compile" if compiled else "eager"
        torch.backends.cudnn.allow_tf32 = False  # fp32 is strict, as in ours
        m, o = spec.model, spec.optimizer
        self.spec, self.device, self.bf16 = spec, device, precision == "bf16"
        self.model = timm.create_model(
            "deit_small_patch16_224", num_classes=m.classes, img_size=m.image_size, patch_size=m.patch_size,
            embed_dim=m.dim, depth=m.depth, num_heads=m.heads, mlp_ratio=m.mlp_dim / m.dim,
        ).to(device)  # fmt: skip
        self.optimizer = torch.optim.AdamW(
            param_groups_weight_decay(self.model, o.weight_decay), betas=(o.beta1, o.beta2), eps=o.eps, fused=True
        )
        self.mean, self.std = (
            torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (spec.data.mean, spec.data.std)
        )
        self.compile = torch.compile if compiled else lambda function: function
        self.train_forward: Any = self.compile(self._forward)
        self.infer_forward: Any = None

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        self.model.load_state_dict({name: self.torch.from_numpy(value) for name, value in params.items()})

    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        return tuple(self.torch.from_numpy(x).to(self.device) for x in (images, targets) if x is not None)

    def _forward(self, images: Any) -> Any:
        x = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        size = (self.spec.model.image_size,) * 2
        x = self.torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
        return self.model(x.to(next(self.model.parameters()).dtype))

    def train_step(self, batch: Batch, lr: float) -> Handle:
        torch = self.torch
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits = self.train_forward(batch[0])
        loss = torch.nn.functional.cross_entropy(logits.float(), batch[1])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.optimizer.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack((loss.detach(), norm))

    def infer(self, batch: Batch) -> Handle:
        """In bfloat16 with the parameters cast once, which is faster than autocast."""
        if self.infer_forward is None:
            self.model.eval().to(self.torch.bfloat16 if self.bf16 else self.torch.float32)
            self.infer_forward = self.compile(self._forward)
        with self.torch.no_grad():  # under inference_mode nothing is frozen
            return self.infer_forward(batch[0])

    def synchronize(self, *handles: Handle) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def to_numpy(self, handle: Handle) -> np.ndarray:
        value: np.ndarray = handle.float().cpu().numpy()
        return value

    def describe(self) -> dict[str, Any]:
        return {
            "framework": "torch",
            "framework_version": self.torch.__version__,
            "timm_version": self.timm_version,
            "compile_mode": self.compile_mode,
            "threads": self.torch.get_num_threads(),
        }


@click.command(help=__doc__)
@click.option("--contender", required=True, help="timm-eager or timm-compile, and whatever follows.")
@click.option("--job", required=True, help="What is timed, as JSON.")
def main(contender: str, job: str) -> None:
    compiled, frozen = (contender.startswith(f"timm-{how}") for how in ("compile", "compile-frozen"))
    peers.serve(partial(Timm, compiled=compiled, frozen=frozen), json.loads(job))


if __name__ == "__main__":
    main()
