"""Operators of the training step that spare MLX kernels: small batches wait for the host to dispatch them."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import mlx.core as mx


def on_cuda() -> bool:
    """Whether MLX computes on an NVIDIA GPU, unless it is told otherwise."""
    return bool(mx.cuda.is_available() and mx.default_device() == mx.Device(mx.gpu))


@mx.custom_function
def linear(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """x W^T + b over the last axis: [..., in], [out, in], [out] -> [..., out].

    MLX's own gradient of the weight is that of W^T turned round, which has to be copied to lie as the weight does.
    """
    return mx.addmm(bias, x, weight.T)


@linear.vjp
def _linear_gradients(primals: Sequence[mx.array], dy: mx.array, _: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    x, weight, _ = primals
    rows = dy.reshape(-1, dy.shape[-1])
    return dy @ weight, rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(0)


BLOCKS, THREADS = 128, 256
"""Blocks for each array that is joined, and their threads."""
COPY = """
template <typename T>
__device__ void copy(const T* from, float* to, int size) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x)
    to[i] = static_cast<float>(from[i]);
}
"""


@cache
def _join_kernel(sizes: tuple[int, ...]) -> Callable[..., list[mx.array]]:
    """A CUDA kernel that copies arrays of these sizes behind one another: a row of its grid for each."""
    starts = accumulate(sizes, initial=0)
    cases = [
        f"case {i}: copy(piece{i}, out + {start}, {size}); break;"
        for i, (start, size) in enumerate(zip(starts, sizes, strict=False))
    ]
    kernel: Any = mx.fast.cuda_kernel(
        name=f"join_{len(sizes)}_{sum(sizes)}",
        input_names=[f"piece{i}" for i in range(len(sizes))],
        output_names=["out"],
        header=COPY,
        source="switch (blockIdx.y) {\n" + "\n".join(cases) + "\n}",
    )
    return kernel


def join(pieces: Sequence[mx.array]) -> mx.array:
    """All values of `pieces`, arrays of one type, as one float32 vector.

    On CUDA it is one kernel, where mx.concatenate takes one for each piece. Metal binds 31 arrays to a kernel at most.
    """
    if not on_cuda():
        return mx.concatenate([piece.flatten() for piece in pieces]).astype(mx.float32)
    sizes = tuple(piece.size for piece in pieces)
    (joined,) = _join_kernel(sizes)(
        inputs=list(pieces),
        grid=(BLOCKS * THREADS, len(pieces), 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(sum(sizes),)],
        output_dtypes=[mx.float32],
    )
    return joined
