"""This package's step against mlx-image's ViT-small on MLX, and on an NVIDIA GPU against timm as well.

Run: make peers-mlx (it makes the environments), or .venv/bin/python benchmarks/peers.py --help
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from bench_mlx.platform import PLATFORM
from shared_spec.backend import Batch, Handle
from shared_spec.dev import peers
from shared_spec.workload.spec import Spec


class MlxImage:
    """shared_spec.dev.peers.Contender: mlx-image's VisionTransformer as `vit_small_patch16_224` makes it.

    Trained with MLX's AdamW in one compiled step, as MLX's own examples do. Images are upscaled by nn.Upsample.
    """

    def __init__(self, spec: Spec, device: str, precision: str) -> None:
        from importlib.metadata import version

        import mlx.core as mx
        import mlx.optimizers as optim
        from mlx import nn
        from mlx.utils import tree_map, tree_map_with_path
        from mlxim.model.vit.vit import VisionTransformer

        self.mx, self.version = mx, version("mlx-image")
        mx.set_default_device(mx.cpu if device == "cpu" else mx.gpu)
        m, d, o = spec.model, spec.data, spec.optimizer
        self.dtype = mx.bfloat16 if precision == "bf16" else mx.float32
        self.model = VisionTransformer(
            m.image_size, m.patch_size, m.depth, m.heads, m.dim, m.mlp_dim, num_classes=m.classes,
            norm_layer=partial(nn.LayerNorm, eps=m.layer_norm_eps), attn_bias=True,
        )  # fmt: skip
        upsample = nn.Upsample(m.image_size / d.image_size, mode="linear", align_corners=False)
        mean, std = mx.array(d.mean), mx.array(d.std)
        groups = [
            optim.AdamW(1e-4, betas=[o.beta1, o.beta2], eps=o.eps, weight_decay=decay, bias_correction=True)
            for decay in (o.weight_decay, 0.0)
        ]
        decayed = self._is_decayed
        self.optimizer = optim.MultiOptimizer(groups, [decayed])
        self.params = tree_map_with_path(lambda name, x: x, self.model.trainable_parameters())

        def forward(params: Any, images: Any) -> Any:
            self.model.update(tree_map(lambda x: x.astype(self.dtype), params))
            x = upsample((images.astype(mx.float32) / 255 - mean) / std)
            logits = self.model(x.astype(self.dtype))
            return (logits[0] if isinstance(logits, tuple) else logits).astype(mx.float32)

        def loss(params: Any, images: Any, targets: Any) -> Any:
            return nn.losses.cross_entropy(forward(params, images), targets, reduction="mean")

        self.state: dict[str, Any] = {"params": self.params, "optimizer": self.optimizer.state}
        self.optimizer.init(self.params)

        def step(images: Any, targets: Any, lr: Any) -> Any:
            value, gradients = mx.value_and_grad(loss)(self.state["params"], images, targets)
            gradients, norm = optim.clip_grad_norm(gradients, o.clip_norm)
            for one in groups:
                one.learning_rate = lr
            self.state["params"] = self.optimizer.apply_gradients(gradients, self.state["params"])
            self.state["optimizer"] = self.optimizer.state
            return mx.stack([value, norm])

        self.step = mx.compile(step, inputs=self.state, outputs=self.state)
        self.forward = mx.compile(forward)

    @staticmethod
    def _is_decayed(name: str, value: Any) -> bool:
        return value.ndim > 1 and not name.endswith(("class_token", "pos_embedding"))

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        """Keeps mlx-image's own initial values."""

    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        return tuple(self.mx.array(x) for x in (images, targets) if x is not None)

    def train_step(self, batch: Batch, lr: float) -> Handle:
        result = self.step(*batch, self.mx.array(lr, self.mx.float32))
        self.mx.async_eval(result, self.state)
        return result

    def infer(self, batch: Batch) -> Handle:
        return self.forward(self.state["params"], batch[0])

    def synchronize(self, *handles: Handle) -> None:
        self.mx.eval(*handles, self.state)

    def to_numpy(self, handle: Handle) -> np.ndarray:
        return np.array(handle)

    def describe(self) -> dict[str, Any]:
        return {
            "framework": "mlx",
            "framework_version": self.mx.__version__,
            "mlx_image_version": self.version,
            "compile_mode": "mx.compile",
        }


PEERS = {"mlx-image": peers.Peer(MlxImage, ".venv-mlx-image", same_values=False)} | peers.timm_peers(
    ".venv-timm", devices=("cuda",)
)

if __name__ == "__main__":
    peers.main(PLATFORM, __file__, PEERS)
