"""cuDNN's fused attention on an NVIDIA GPU, reached as XLA itself reaches it: by a custom call.

TensorFlow has no operator for it, and XLA recognises no attention in a graph. What follows is XLA's own contract: the
calls' names, and their configuration, which is the JSON of its GpuBackendConfig (xla/service/gpu/backend_configs.proto).
The call stands in a module of StableHLO, since no other way of TensorFlow's lets it say how its results lie in memory.

Shapes: B batch, N tokens, H heads, D dim of a head.
"""

import ctypes
import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"
TOKENS, HEADS, DIM = 1, 2, 3
"""Axes of queries, keys, values, output and their gradients as they are handed over: [B, N, H, D]."""

_Axes = tuple[int, ...]
_Array = tuple[tf.DType, Sequence[int]]
"""Type and shape."""
_ELEMENTS = {tf.bfloat16: "bf16", tf.float32: "f32", tf.uint8: "ui8"}
_MODULE_VERSION = 9
"""Of XlaCallModule's contract, as this is written; TensorFlow goes on reading old ones."""
_PLATFORMS = ["CUDA"]


def _product(left: int, right: int, left_batch: _Axes, right_batch: _Axes = (0, HEADS)) -> dict[str, list[str]]:
    """Dot dimension numbers: the axis contracted in each operand, and the operands' batch axes."""
    return {
        "lhs_contracting_dimensions": [str(left)],
        "rhs_contracting_dimensions": [str(right)],
        "lhs_batch_dimensions": [str(axis) for axis in left_batch],
        "rhs_batch_dimensions": [str(axis) for axis in right_batch],
    }


_SCORES = (0, 1)
"""Batch axes of scores and their gradient, [B, H, N, N]."""
_PRODUCTS = {
    FORWARD: {"bmm1": _product(DIM, DIM, (0, HEADS)), "bmm2": _product(3, TOKENS, _SCORES)},
    BACKWARD: {
        "bmm1_grad_gemm1": _product(2, TOKENS, _SCORES),
        "bmm1_grad_gemm2": _product(3, TOKENS, _SCORES),
        "bmm2_grad_gemm1": _product(2, TOKENS, _SCORES),
        "bmm2_grad_gemm2": _product(DIM, DIM, (0, HEADS)),
    },
}


def _config(target: str, scores: Sequence[int], scale: float) -> str:
    """The call's configuration; `scores` is the shape of the intermediate that is never written."""
    attention = {
        "algorithm": {
            "algo_id": "0",
            "math_type": "TENSOR_OP_MATH",
            "tuning_knobs": {"17": "1", "24": "0"},
            "is_cudnn_frontend": True,
            "workspace_size": "0",
        },
        "fmha_scale": scale,
        "intermediate_tensor_shape": {
            "element_type": "BF16",
            "dimensions": [str(size) for size in scores],
            "layout": {"minor_to_major": ["3", "2", "1", "0"]},
            "is_dynamic_dimension": [False] * 4,
        },
        "is_flash_attention": True,
        "mask_type": "NO_MASK",
        "max_seg_per_batch": 1,
        **{f"{name}_dot_dimension_numbers": numbers for name, numbers in _PRODUCTS[target].items()},
    }
    return json.dumps({"cudnn_fmha_backend_config": attention})


def _type(dtype: tf.DType, shape: Sequence[int]) -> str:
    """A tensor's type as MLIR writes it."""
    return f"tensor<{'x'.join([*map(str, shape), _ELEMENTS[dtype]])}>"


def _layout(shape: Sequence[int], tokens_outside: bool = False) -> str:
    """Order of the axes in memory, the innermost first, as MLIR writes it; of [B, H, N, D] also with N outside H."""
    axes = [3, 1, 2, 0] if tokens_outside and len(shape) == 4 else list(range(len(shape)))[::-1]
    return f"dense<{axes}> : tensor<{len(axes)}xindex>"


def _module(target: str, config: str, operands: Sequence[_Array], results: Sequence[_Array]) -> str:
    """A module of StableHLO with the call alone."""
    takes, gives = (", ".join(_type(*array) for array in arrays) for arrays in (operands, results))
    arguments = [f"%arg{i}" for i in range(len(operands))]
    signature = ", ".join(f"{name}: {_type(*array)}" for name, array in zip(arguments, operands, strict=True))
    operand_layouts = ", ".join(_layout(shape) for _, shape in operands)
    result_layouts = ", ".join(_layout(shape, tokens_outside=True) for _, shape in results)
    quoted = config.replace('"', "\\22")
    found = ", ".join(f"%found#{i}" for i in range(len(results)))
    return f"""
        func.func public @main({signature}) -> ({gives}) {{
          %found:{len(results)} = stablehlo.custom_call @"{target}"({", ".join(arguments)}) {{
            api_version = 2 : i32, backend_config = "{quoted}",
            operand_layouts = [{operand_layouts}], result_layouts = [{result_layouts}]
          }} : ({takes}) -> ({gives})
          return {found} : {gives}
        }}"""


def _call(target: str, operands: Sequence[tf.Tensor], results: Sequence[_Array]) -> list[tf.Tensor]:
    """The custom call on operands of which the first is the queries; `results` are types and shapes."""
    b, n, h, d = operands[0].shape
    results = [*results, (tf.uint8, [0])]  # scratch: XLA puts its size in when it has asked cuDNN
    given = [(operand.dtype, operand.shape.as_list()) for operand in operands]
    *found, _ = gen_xla_ops.xla_call_module(
        args=operands,
        version=_MODULE_VERSION,
        module=_module(target, _config(target, (b, h, n, n), d**-0.5), given, results),
        Sout=[tf.TensorShape(shape) for _, shape in results],
        Tout=[dtype for dtype, _ in results],
        platforms=_PLATFORMS,
    )
    return list(found)


@tf.custom_gradient
def _attention(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
    b, n, h, d = q.shape
    output, logs = _call(FORWARD, (q, k, v), [(q.dtype, [b, h, n, d]), (tf.float32, [b, h, n])])
    output = tf.transpose(output, (0, 2, 1, 3))  # nothing moves: this is how it lies in memory

    def gradient(dy: tf.Tensor) -> list[tf.Tensor]:
        found = _call(BACKWARD, (q, k, v, logs, dy, output), [(q.dtype, [b, h, n, d])] * 3)
        return [tf.transpose(x, (0, 2, 1, 3)) for x in found]

    return output, gradient


def attention(qkv: tf.Tensor) -> tf.Tensor:
    """softmax(q k^T / sqrt(D)) v of bfloat16 [B, N, 3, H, D], as [B, N, H, D]; only where XLA compiles for a GPU.

    The backward pass computes the scores again, from the queries, the keys and the logarithm of each row's sum
    (FlashAttention-2, arXiv 2307.08691).
    """
    output: tf.Tensor = _attention(*tf.unstack(qkv, axis=2))
    return output


def version() -> str | None:
    """Of the cuDNN that TensorFlow has loaded, which need not be the one it was built for; None if none was needed."""
    try:
        library = ctypes.CDLL("libcudnn.so.9", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None
    number = int(ctypes.c_size_t(library.cudnnGetVersion()).value)
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


@cache
def refusal(tokens: int, heads: int, dim: int) -> str | None:
    """Why cuDNN does not serve attention of these sizes here, in its own words; None if it does.

    It is tried, in both directions: which of cuDNN's versions can do it is written nowhere. Also while a program is
    traced, outside of which it is tried then.
    """

    def both(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = attention(x)
        return tape.gradient(y, x)

    try:
        with tf.init_scope(), tf.device("GPU:0"):
            tf.function(both, jit_compile=True, autograph=False)(tf.zeros((1, tokens, 3, heads, dim), tf.bfloat16))
    except tf.errors.OpError as error:
        return " ".join(error.message.split())[:200]
    return None
