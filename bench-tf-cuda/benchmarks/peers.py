"""This package's step against keras-hub's DeiT backbone on TensorFlow, and on an NVIDIA GPU against timm as well.

Run: make peers-cuda (it makes the environments), or .venv/bin/python benchmarks/peers.py --help
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from bench_tf_cuda.platform import PLATFORM
from shared_spec.backend import Batch, Handle
from shared_spec.dev import peers
from shared_spec.workload.spec import Spec


class KerasHub:
    """shared_spec.dev.peers.Contender: keras_hub.models.DeiTBackbone with a head, trained by Keras' own train step.

    It has a second, distillation, token (198 instead of 197) and initial values of its own. The images are upscaled by
    Keras' Resizing layer. The optimiser is Keras' AdamW with the global norm clipped at 1.
    """

    def __init__(self, spec: Spec, device: str, precision: str, compiled: bool) -> None:
        import keras
        import keras_hub
        import tensorflow as tf

        self.tf, self.keras, self.hub_version, self.compiled = tf, keras, keras_hub.__version__, compiled
        tf.config.experimental.enable_tensor_float_32_execution(False)  # fp32 is strict, as in ours
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        self.place = "GPU:0" if device == "cuda" else "CPU:0"
        keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bf16" else "float32")
        m, d, o = spec.model, spec.data, spec.optimizer
        backbone = keras_hub.models.DeiTBackbone(
            image_shape=(m.image_size, m.image_size, m.channels), patch_size=m.patch_size, num_layers=m.depth,
            num_heads=m.heads, hidden_dim=m.dim, intermediate_dim=m.mlp_dim, layer_norm_epsilon=m.layer_norm_eps,
        )  # fmt: skip
        images = keras.Input((d.image_size, d.image_size, 3), dtype="uint8")
        x = keras.layers.Rescaling(1 / 255)(images)
        x = keras.layers.Normalization(mean=d.mean, variance=[s * s for s in d.std])(x)
        x = keras.layers.Resizing(m.image_size, m.image_size)(x)
        logits = keras.layers.Dense(m.classes, dtype="float32")(backbone(x)[:, 0])
        self.model = keras.Model(images, logits)
        optimizer = keras.optimizers.AdamW(
            1e-4,
            weight_decay=o.weight_decay,
            beta_1=o.beta1,
            beta_2=o.beta2,
            epsilon=o.eps,
            global_clipnorm=o.clip_norm,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "token", "position_embedding"])
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        self.model.compile(optimizer, loss, jit_compile=compiled)
        optimizer.build(self.model.trainable_variables)
        self.step = tf.function(lambda x, y: self.model.train_step((x, y)), jit_compile=compiled)
        self.forward = tf.function(lambda x: self.model(x, training=False), jit_compile=compiled)

    def load_params(self, params: Mapping[str, np.ndarray]) -> None:
        """Keeps Keras' own initial values."""

    def to_device(self, images: np.ndarray, targets: np.ndarray | None) -> Batch:
        with self.tf.device(self.place):
            return tuple(self.tf.constant(x) for x in (images, targets) if x is not None)

    def train_step(self, batch: Batch, lr: float) -> Handle:
        """What `fit` compiles and runs for each batch, without its iterator and callbacks; its loss is a running mean."""
        self.model.optimizer.learning_rate.assign(lr)
        return self.step(*batch)["loss"]

    def infer(self, batch: Batch) -> Handle:
        return self.forward(batch[0])

    def synchronize(self, *handles: Handle) -> None:
        for handle in handles:
            handle.numpy()

    def to_numpy(self, handle: Handle) -> np.ndarray:
        value: np.ndarray = np.atleast_1d(handle.numpy())
        return value

    def describe(self) -> dict[str, Any]:
        return {
            "framework": "keras",
            "framework_version": self.keras.__version__,
            "tensorflow_version": self.tf.__version__,
            "keras_hub_version": self.hub_version,
            "compile_mode": "jit_compile" if self.compiled else "graph, as fit runs it without jit_compile",
        }


PEERS = {
    f"keras-hub-{how}": peers.Peer(partial(KerasHub, compiled=how == "jit"), ".venv-keras-hub", same_values=False)
    for how in ("fit", "jit")
} | peers.timm_peers(".venv-timm", devices=("cuda",))

if __name__ == "__main__":
    peers.main(PLATFORM, __file__, PEERS)
