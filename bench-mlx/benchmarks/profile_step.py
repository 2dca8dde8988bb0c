"""Where a training step's time goes: the step, its parts one by one, and the step under MLX's settings for CUDA.

.venv/bin/python benchmarks/profile_step.py --device cuda --precision bf16 --out step.json
.venv/bin/python benchmarks/profile_step.py --device cpu --batch 2 --seconds 0.2     # a trial without a GPU
"""

from collections.abc import Callable, Iterator
from typing import Any

from bench_mlx.platform import PLATFORM
from shared_spec.dev.step_profile import Part, main

VARIANTS = {
    "no CUDA graphs": {"MLX_USE_CUDA_GRAPHS": "0"},
    "graphs of up to 400 operations": {"MLX_MAX_OPS_PER_BUFFER": "400", "MLX_MAX_MB_PER_BUFFER": "4000"},
    "graphs of up to 2000 operations": {"MLX_MAX_OPS_PER_BUFFER": "2000", "MLX_MAX_MB_PER_BUFFER": "100000"},
    "graphs of up to 20 operations": {"MLX_MAX_OPS_PER_BUFFER": "20"},
    "larger cache of graphs": {"MLX_CUDA_GRAPH_CACHE_SIZE": "2000"},
    "attention without cuDNN": {"MLX_CUDA_USE_CUDNN_SDPA": "0"},
}
"""They say nothing on Metal and on the CPU."""


def _functions(backend: Any, batch: Any) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """The parts of a step as (name, function of arrays, arguments); a block's parts come once, not twelve times."""
    import mlx.core as mx

    from shared_spec.backend import enable_grad

    m, dtype, images = backend.spec.model, backend._dtype, batch[0]
    model = backend._model
    backend._forward(backend._weights(), images)  # the modules hold this precision's parameters from here on
    tokens = mx.random.normal((len(images) * m.tokens, m.dim)).astype(dtype)
    pixels = mx.random.normal((len(images), m.channels, m.image_size, m.image_size)).astype(dtype)
    block = model.blocks[0]
    layers = {
        "patch embedding": (model.patch_embed, pixels),
        "LayerNorm": (block.norm1, tokens),
        "attention": (block.attn, tokens),
        "MLP": (block.mlp, tokens),
        "fc1": (block.mlp.fc1, tokens),
        "block": (block, tokens),
    }
    # Taken before anything is traced: a trace leaves its placeholders in the modules.
    parameters = {name: layer.parameters() for name, (layer, _) in layers.items()}
    yield "normalise and upscale", model.preprocess, (images,)
    for name, (layer, x) in layers.items():

        def forward(values: Any, x: Any, layer: Any = layer) -> Any:
            layer.update(values)
            return sum(layer(x, x)) if layer is block else layer(x)

        def loss(values: Any, x: Any, forward: Any = forward) -> Any:
            with enable_grad():
                y = forward(values, x)
            return mx.square(y.astype(mx.float32)).sum()

        yield f"{name}, forward", forward, (parameters[name], x)
        yield f"{name}, both passes", mx.grad(loss, argnums=(0, 1)), (parameters[name], x)
    yield "all gradients, no optimiser", mx.value_and_grad(backend._loss), (backend._weights(), *batch)
    yield "cast and cut the vector of parameters", backend._weights, ()
    yield "a program that does nothing", lambda x: x + 1, (mx.zeros(1),)


def parts(backend: Any, batch: Any) -> Iterator[Part]:
    """Each function compiled and dispatched; waiting evaluates the result."""
    import mlx.core as mx

    for name, function, arguments in _functions(backend, batch):
        compiled = mx.compile(function) if arguments else function

        def call(compiled: Any = compiled, arguments: Any = arguments) -> Any:
            result = compiled(*arguments)
            mx.async_eval(result)
            return result

        yield name, call, mx.eval


def memory(backend: Any, batch: Any) -> dict[str, int | None]:
    """Memory of the step; MLX does not tell how many kernels it dispatched."""
    found: dict[str, int | None] = backend.memory()
    return found


if __name__ == "__main__":
    main(PLATFORM, __file__, parts, memory, VARIANTS)
