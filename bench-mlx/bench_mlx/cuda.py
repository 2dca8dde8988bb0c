"""CUDA kernels, each in place of several of MLX's: small batches wait for the host, which hands over one after another.

They take arrays of float32 or bfloat16, compute in float32 and round what they return once.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import mlx.core as mx

Kernel = Callable[..., list[mx.array]]

WARP = 32
BLOCKS, THREADS = 128, 256
"""Blocks that share an array, where their number is free, and their threads."""

SUMMING_WARPS = 16
"""Warps of a block of LayerNorm's backward pass, each with its own sums in the 48 KiB of a block's shared memory."""
LARGEST_NORM = 768
"""Values a row for which those suffice."""

COPY = """
template <typename T>
__device__ void copy(const T* from, float* to, int size) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x)
    to[i] = static_cast<float>(from[i]);
}
"""
WARP_SUM = """
__device__ float warp_sum(float x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffff, x, i);
  return x;
}
"""

ADD_NORM = """
constexpr int PER_LANE = (D + 31) / 32;
int lane = threadIdx.x % 32;
long row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
if (row >= x_shape[0]) return;
float z[PER_LANE], total = 0, squares = 0;
#pragma unroll
for (int i = 0; i < PER_LANE; ++i) {
  int c = i * 32 + lane;
  if (c >= D) break;
  T rounded = static_cast<T>(static_cast<float>(x[row * D + c]) + static_cast<float>(added[row * D + c]));
  sum[row * D + c] = rounded;
  z[i] = static_cast<float>(rounded);
  total += z[i];
}
float mean = warp_sum(total) / D;
#pragma unroll
for (int i = 0; i < PER_LANE; ++i)
  if (i * 32 + lane < D) squares += (z[i] - mean) * (z[i] - mean);
float scale = rsqrtf(warp_sum(squares) / D + EPS);
#pragma unroll
for (int i = 0; i < PER_LANE; ++i) {
  int c = i * 32 + lane;
  if (c >= D) break;
  normed[row * D + c] =
      static_cast<T>((z[i] - mean) * scale * static_cast<float>(weight[c]) + static_cast<float>(bias[c]));
}
"""

ADD_NORM_GRADIENT = """
constexpr int PER_LANE = (D + 31) / 32;
__shared__ float shared[WARPS][D];
int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
float sums[2][PER_LANE] = {};
for (long row = blockIdx.x * WARPS + warp; row < x_shape[0]; row += gridDim.x * WARPS) {
  float z[PER_LANE], g[PER_LANE], total = 0, squares = 0, slope = 0, tilt = 0;
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    int c = i * 32 + lane;
    bool there = c < D;
    z[i] = there ? static_cast<float>(x[row * D + c]) : 0;
    g[i] = there ? static_cast<float>(dnormed[row * D + c]) : 0;
    total += z[i];
  }
  float mean = warp_sum(total) / D;
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    z[i] = i * 32 + lane < D ? z[i] - mean : 0;
    squares += z[i] * z[i];
  }
  float scale = rsqrtf(warp_sum(squares) / D + EPS);
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    z[i] *= scale;
    sums[0][i] += g[i] * z[i];
    sums[1][i] += g[i];
    g[i] *= i * 32 + lane < D ? static_cast<float>(weight[i * 32 + lane]) : 0;
    slope += g[i];
    tilt += g[i] * z[i];
  }
  slope = warp_sum(slope) / D;
  tilt = warp_sum(tilt) / D;
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i) {
    int c = i * 32 + lane;
    if (c >= D) break;
    dx[row * D + c] = static_cast<T>(static_cast<float>(dsum[row * D + c]) + scale * (g[i] - slope - z[i] * tilt));
  }
}
for (int k = 0; k < 2; ++k) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < PER_LANE; ++i)
    if (i * 32 + lane < D) shared[warp][i * 32 + lane] = sums[k][i];
  __syncthreads();
  for (int c = threadIdx.x; c < D; c += blockDim.x) {
    float total = 0;
    for (int i = 0; i < WARPS; ++i) total += shared[i][c];
    partial[(blockIdx.x * 2 + k) * D + c] = total;
  }
}
"""

ADD_PARTIAL = """
__shared__ float shared[8][32];
int lane = threadIdx.x % 32, group = threadIdx.x / 32, c = blockIdx.x * 32 + lane;
float total = 0;
if (c < 2 * D)
  for (int i = group; i < partial_shape[0]; i += 8) total += partial[i * 2 * D + c];
shared[group][lane] = total;
__syncthreads();
if (group > 0 || c >= 2 * D) return;
for (int i = 1; i < 8; ++i) total += shared[i][lane];
(c < D ? dweight : dbias)[c % D] = static_cast<T>(total);
"""

SOFTMAX_GRADIENT = """
constexpr int PER_LANE = (N + 31) / 32;
int lane = threadIdx.x % 32;
long row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
if (row >= static_cast<long>(y_shape[0]) * y_shape[1]) return;
float p[PER_LANE], g[PER_LANE], total = 0;
#pragma unroll
for (int i = 0; i < PER_LANE; ++i) {
  int c = i * 32 + lane;
  p[i] = c < N ? static_cast<float>(y[row * N + c]) : 0;
  g[i] = c < N ? static_cast<float>(dy[row * N + c]) : 0;
  total += p[i] * g[i];
}
total = warp_sum(total);
#pragma unroll
for (int i = 0; i < PER_LANE; ++i)
  if (i * 32 + lane < N) dx[row * N + i * 32 + lane] = static_cast<T>(p[i] * (g[i] - total));
"""

MERGE_HEADS = """
long i = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x;
int tokens = q_shape[1];
long head = i / D % H, which = i / (D * H) % 3, row = i / (3 * D * H);
long image = row / tokens;
if (image >= q_shape[0] / H) return;
long from = ((image * H + head) * tokens + row % tokens) * D + i % D;
const T* piece = which == 0 ? q : which == 1 ? k : v;
float scale = which == 0 ? 1 / sqrtf(D) : 1;
merged[i] = static_cast<T>(scale * static_cast<float>(piece[from]));
"""


@cache
def _kernel(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], source: str, header: str = WARP_SUM
) -> Kernel:
    kernel: Any = mx.fast.cuda_kernel(
        name=name, input_names=list(inputs), output_names=list(outputs), source=source, header=header
    )
    return kernel


def _constant(eps: float) -> str:
    return f"constexpr float EPS = {eps:e}f;\n"


def _rows_by_warp(rows: int) -> dict[str, tuple[int, int, int]]:
    """Grid of a kernel that has a warp for each row."""
    per_block = THREADS // WARP
    return {"grid": (-(-rows // per_block) * THREADS, 1, 1), "threadgroup": (THREADS, 1, 1)}


def add_norm(x: mx.array, added: mx.array, weight: mx.array, bias: mx.array, eps: float) -> tuple[mx.array, mx.array]:
    """x + added, and its LayerNorm: [R, D], [R, D], [D], [D] -> two of [R, D]."""
    rows, d = x.shape
    kernel = _kernel("add_norm", ("x", "added", "weight", "bias"), ("sum", "normed"), _constant(eps) + ADD_NORM)
    total, normed = kernel(
        inputs=[x, added, weight, bias], template=[("T", x.dtype), ("D", d)],
        output_shapes=[x.shape] * 2, output_dtypes=[x.dtype] * 2, **_rows_by_warp(rows),
    )  # fmt: skip
    return total, normed


def add_norm_gradient(
    x: mx.array, weight: mx.array, dsum: mx.array, dnormed: mx.array, eps: float
) -> tuple[mx.array, mx.array, mx.array]:
    """Of `add_norm`, whose sum is x: gradients of either summand [R, D], of the weight and of the bias [D]."""
    d, dtype = x.shape[-1], x.dtype
    inputs, source = ("x", "weight", "dsum", "dnormed"), _constant(eps) + ADD_NORM_GRADIENT
    kernel = _kernel("add_norm_gradient", inputs, ("dx", "partial"), source)
    threads = SUMMING_WARPS * WARP
    dx, partial = kernel(
        inputs=[x, weight, dsum, dnormed],
        template=[("T", dtype), ("D", d), ("WARPS", SUMMING_WARPS)],
        grid=(BLOCKS * threads, 1, 1), threadgroup=(threads, 1, 1),
        output_shapes=[x.shape, (BLOCKS, 2, d)], output_dtypes=[dtype, mx.float32],
    )  # fmt: skip
    dweight, dbias = _kernel("add_partial", ("partial",), ("dweight", "dbias"), ADD_PARTIAL)(
        inputs=[partial], template=[("T", dtype), ("D", d)],
        grid=(-(-2 * d // WARP) * THREADS, 1, 1), threadgroup=(THREADS, 1, 1),
        output_shapes=[(d,), (d,)], output_dtypes=[dtype] * 2,
    )  # fmt: skip
    return dx, dweight, dbias


def softmax_gradient(y: mx.array, dy: mx.array) -> mx.array:
    """Gradient before the softmax over the last axis whose result is y: two of [B, N, N] -> [B, N, N]."""
    (dx,) = _kernel("softmax_gradient", ("y", "dy"), ("dx",), SOFTMAX_GRADIENT)(
        inputs=[y, dy], template=[("T", y.dtype), ("N", y.shape[-1])],
        output_shapes=[y.shape], output_dtypes=[y.dtype], **_rows_by_warp(y.shape[0] * y.shape[1]),
    )  # fmt: skip
    return dx


def merge_heads(q: mx.array, k: mx.array, v: mx.array, heads: int) -> mx.array:
    """q / sqrt(D), k and v beside one another by token: three of [B*H, N, D] -> [B, N, 3, H, D]."""
    _, n, d = q.shape
    kernel = _kernel("merge_heads", ("q", "k", "v"), ("merged",), MERGE_HEADS)
    (merged,) = kernel(
        inputs=[q, k, v], template=[("T", q.dtype), ("H", heads), ("D", d)],
        grid=(-(-3 * q.size // THREADS) * THREADS, 1, 1), threadgroup=(THREADS, 1, 1),
        output_shapes=[(q.shape[0] // heads, n, 3, heads, d)], output_dtypes=[q.dtype],
    )  # fmt: skip
    return merged


@cache
def join_kernel(sizes: tuple[int, ...]) -> Kernel:
    """A kernel that copies arrays of these sizes behind one another: a row of its grid for each."""
    starts = accumulate(sizes, initial=0)
    cases = [
        f"case {i}: copy(piece{i}, out + {start}, {size}); break;"
        for i, (start, size) in enumerate(zip(starts, sizes, strict=False))
    ]
    names = tuple(f"piece{i}" for i in range(len(sizes)))
    source = "switch (blockIdx.y) {\n" + "\n".join(cases) + "\n}"
    return _kernel(f"join_{len(sizes)}_{sum(sizes)}", names, ("out",), source, COPY)


def join(pieces: Sequence[mx.array]) -> mx.array:
    """All values of `pieces` as one float32 vector."""
    sizes = tuple(piece.size for piece in pieces)
    (joined,) = join_kernel(sizes)(
        inputs=list(pieces),
        grid=(BLOCKS * THREADS, len(pieces), 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(sum(sizes),)],
        output_dtypes=[mx.float32],
    )
    return joined
