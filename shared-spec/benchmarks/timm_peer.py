"""timm's DeiT-small, trained as timm's own scripts train it, as a peer of the implementations here.

A step starts from the same uint8 images as ours: normalised and upscaled by PyTorch's own operators on the device. A
duel (shared_spec.dev.peers) starts this script, in an environment that has timm.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import numpy as np

from shared_spec.backend import Batch, Handle
from shared_spec.dev import peers
from shared_spec.workload.spec import Spec


@dataclass(frozen=True)
class Setting:
    """How PyTorch runs the model.

    Attributes:
        mode: of torch.compile; None for eager.
        frozen: weights become constants, which Inductor packs once: for inference on a CPU.
        graph: the whole training step, optimiser included, is captured once in a CUDA graph and replayed.
        channels_last: the memory format of images and of the patch projection.
    """

    mode: str | None = None
    frozen: bool = False
    graph: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        words = ["eager" if self.mode is None else f"torch.compile, {self.mode}"]
        words += [
            word
            for word, holds in (
                ("frozen", self.frozen),
                ("whole step in a CUDA graph", self.graph),
                ("channels last", self.channels_last),
            )
            if holds
        ]
        return ", ".join(words)


SETTINGS = {
    "timm-eager": Setting(),
    "timm-compile": Setting("default"),
    "timm-compile-frozen": Setting("default", frozen=True),
    "timm-reduce-overhead": Setting("reduce-overhead"),
    "timm-graph": Setting("default", graph=True),
    "timm-graph-channels-last": Setting("default", graph=True, channels_last=True),
}
WARM_UP = 3
"""Steps before a capture, as PyTorch's notes on CUDA graphs ask."""


class Timm:
    """shared_spec.dev.peers.Contender: `deit_small_patch16_224` in one of the settings."""

    def __init__(self, spec: Spec, device: str, precision: str, setting: Setting) -> None:
        import timm
        import torch
        from timm.optim import param_groups_weight_decay

        if setting.frozen:
            from torch._inductor import config

            config.freezing = True
        self.torch, self.timm_version, self.setting = torch, timm.__version__, setting
        torch.backends.cudnn.allow_tf32 = False  # fp32 is strict, as in ours
        m, o = spec.model, spec.optimizer
        self.spec, self.device, self.bf16 = spec, device, precision == "bf16"
        self.model = timm.create_model(
            "deit_small_patch16_224", num_classes=m.classes, img_size=m.image_size, patch_size=m.patch_size,
            embed_dim=m.dim, depth=m.depth, num_heads=m.heads, mlp_ratio=m.mlp_dim / m.dim,
        ).to(device)  # fmt: skip
        if setting.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.lr = torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(
            param_groups_weight_decay(self.model, o.weight_decay),
            self.lr if setting.graph else 1e-3,
            betas=(o.beta1, o.beta2),
            eps=o.eps,
            fused=True,
            capturable=setting.graph,
        )
        self.mean, self.std = (
            torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (spec.data.mean, spec.data.std)
        )
        self.train_forward = self._compiled(self._forward)
        self.infer_forward: Any = None
        self.captured: tuple[Any, Batch, Any] | None = None

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        self.model.load_state_dict({name: self.torch.from_numpy(value) for name, value in params.items()})

    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        return tuple(self.torch.from_numpy(x).to(self.device) for x in (images, targets) if x is not None)

    def _compiled(self, function: Callable[..., Any]) -> Any:
        mode = self.setting.mode
        return function if mode is None else self.torch.compile(function, mode=mode)

    def _forward(self, images: Any) -> Any:
        x = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        size = (self.spec.model.image_size,) * 2
        x = self.torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
        if self.setting.channels_last:
            x = x.contiguous(memory_format=self.torch.channels_last)
        return self.model(x.to(next(self.model.parameters()).dtype))

    def train_step(self, batch: Batch, lr: float) -> Handle:
        if self.setting.graph:
            return self._replayed_step(batch, lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return self._step(*batch)

    def _step(self, images: Any, targets: Any) -> Handle:
        torch = self.torch
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits = self.train_forward(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.optimizer.clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack((loss.detach(), norm))

    def _replayed_step(self, batch: Batch, lr: float) -> Handle:
        self.lr.fill_(lr)
        if self.captured is None:
            self.captured = self._capture(batch)
        graph, inputs, result = self.captured
        for static, value in zip(inputs, batch, strict=True):
            static.copy_(value, non_blocking=True)
        graph.replay()
        return result.clone()

    def _capture(self, batch: Batch) -> tuple[Any, Batch, Any]:
        """A graph of the step, the tensors that it reads its batch from, and the one that it writes its result to.

        The steps before the capture are undone.
        """
        torch = self.torch
        inputs = tuple(value.clone() for value in batch)
        before = [p.detach().clone() for p in self.model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._step(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._step(*inputs)
        with torch.no_grad():
            for p, value in zip(self.model.parameters(), before, strict=True):
                p.copy_(value)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()
        return graph, inputs, result

    def infer(self, batch: Batch) -> Handle:
        """In bfloat16 with the parameters cast once, which is faster than autocast."""
        if self.infer_forward is None:
            self.model.eval().to(self.torch.bfloat16 if self.bf16 else self.torch.float32)
            self.infer_forward = self._compiled(self._forward)
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
            "compile_mode": str(self.setting),
            "threads": self.torch.get_num_threads(),
        }


@click.command(help=__doc__)
@click.option("--contender", required=True, help="A setting, and whatever follows its name.")
@click.option("--job", required=True, help="What is timed, as JSON.")
def main(contender: str, job: str) -> None:
    name = max((name for name in SETTINGS if contender.startswith(name)), key=len)
    peers.serve(partial(Timm, setting=SETTINGS[name]), json.loads(job))


if __name__ == "__main__":
    main()
