"""Where a training step's time goes: the step, its parts one by one, and the step under other XLA flags, in one call.

.venv/bin/python benchmarks/profile_step.py --device cuda --precision fp32 --out step.json
.venv/bin/python benchmarks/profile_step.py --device cpu --batch 2 --seconds 0.2     # a trial without a GPU
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bench_tf_cuda.platform import PLATFORM
from shared_spec.dev.step_profile import Part, main
from shared_spec.workload import params

FLAGS = {
    "no CUDA graphs": "--xla_gpu_enable_command_buffer=",
    "all in CUDA graphs": "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN "
    "--xla_gpu_graph_min_graph_size=1",
    "cuBLASLt": "--xla_gpu_enable_cublaslt=true",
    "no Triton products": "--xla_gpu_enable_triton_gemm=false",
    "Triton products only": "--xla_gpu_cublas_fallback=false",
    "all tilings tried": "--xla_gpu_exhaustive_tiling_search=true",
    "nothing tried": "--xla_gpu_autotune_level=0",
    "latency-hiding scheduler": "--xla_gpu_enable_latency_hiding_scheduler=true",
}
"""Cheapest to adopt first; a flag that this TensorFlow does not know is reported as such."""


def _with_gradient(tf: Any, layer: Callable[[Any], Any], trained: Any) -> Callable[[Any], Any]:
    """Forward and backward pass of `layer`, with regard to its input and what is trained in it."""

    def both(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch((x, trained))
            loss = tf.reduce_sum(tf.square(tf.cast(layer(x), tf.float32)))
        return tape.gradient(loss, (x, trained))

    return both


def _functions(backend: Any, batch: Any) -> Iterator[tuple[str, Callable[[Any], Any], Any]]:
    """The parts of a step as (name, function, its argument); what a block does comes once, not twelve times."""
    import tensorflow as tf

    from bench_tf_cuda import ops
    from bench_tf_cuda.model import DeiT

    spec, dtype, images = backend.spec, backend._dtype, batch[0]
    m, model = spec.model, DeiT(spec)
    weights = {name: tf.constant(value, dtype) for name, value in params.initial(spec).items()}
    tokens = tf.random.stateless_normal((len(images), m.tokens, m.dim), (0, 1), dtype=dtype)
    hidden = tf.random.stateless_normal((len(images), m.tokens, m.mlp_dim), (0, 2), dtype=dtype)
    pixels = tf.random.stateless_normal((len(images), m.channels, m.image_size, m.image_size), (0, 3), dtype=dtype)

    model.update(weights)
    block = model.blocks[0]

    def of(prefix: str) -> list[Any]:
        return [value for name, value in weights.items() if name.startswith(prefix)]

    layers = {
        "patch embedding": (model.patch_embed, pixels, of("patch_embed")),
        "LayerNorm": (model.norm, tokens, of("norm")),
        "attention": (block.attn, tokens, of("blocks.0.attn")),
        "MLP": (block.mlp, tokens, of("blocks.0.mlp")),
        "fc1": (block.mlp.fc1, tokens, of("blocks.0.mlp.fc1")),
        "GELU": (ops.gelu, hidden, []),
        "block": (block, tokens, of("blocks.0")),
    }
    yield "normalise and upscale", model.preprocess, images
    for name, (layer, x, trained) in layers.items():
        yield f"{name}, forward", layer, x
        yield f"{name}, both passes", _with_gradient(tf, layer, trained), x
    yield "all gradients, no optimiser", lambda x: backend._gradients(x, batch[1]), images
    yield (
        "cast and cut the vector of parameters",
        lambda x: tf.split(tf.cast(x, dtype), backend._layout.sizes),
        (tf.zeros(sum(backend._layout.sizes))),
    )
    yield "a program that does nothing", lambda x: x + 1, tf.zeros(())


def parts(backend: Any, batch: Any) -> Iterator[Part]:
    """Each function compiled by XLA; waiting reads one value of the first result."""
    import tensorflow as tf

    for name, function, x in _functions(backend, batch):
        with tf.device(backend._place):
            compiled = tf.function(function, jit_compile=True, autograph=False).get_concrete_function(x)
            yield (
                name,
                lambda compiled=compiled, x=x: compiled(x),
                lambda found: tf.reshape(tf.nest.flatten(found)[0], (-1,))[0].numpy(),
            )


def operations(backend: Any, batch: Any) -> dict[str, int]:
    """How often each kind of operation and each library call stands in the step's optimised program."""
    import tensorflow as tf

    with tf.device(backend._place):
        text = backend._compiled_step.experimental_get_compiler_ir(*batch, tf.constant(1e-4))(stage="optimized_hlo")
    entry = text[text.rfind("\nENTRY ") :]
    kinds = Counter(re.findall(r" = .*? ([a-z][a-z0-9-]*)\(", entry))
    kinds.update(re.findall(r'custom_call_target="([^"]+)"', entry))
    return dict(kinds.most_common(20))


if __name__ == "__main__":
    main(PLATFORM, __file__, parts, operations, {name: {"XLA_FLAGS": flags} for name, flags in FLAGS.items()})
