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

COLUMN_SUMS = """
__shared__ float shared[32][33];
int d = rows_shape[1], lane = threadIdx.x % 32, group = threadIdx.x / 32, c = blockIdx.x * 32 + lane;
float total = 0;
if (c < d)
#pragma unroll 8
  for (long row = group; row < rows_shape[0]; row += 32) total += static_cast<float>(rows[row * d + c]);
shared[group][lane] = total;
__syncthreads();
total = warp_sum(shared[lane][group]);
if (lane == 0 && blockIdx.x * 32 + group < d) sums[blockIdx.x * 32 + group] = static_cast<T>(total);
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

ATTEND = """
extern __shared__ unsigned memory[];  // pairs of bfloat16: keys, a pair longer than they are against bank conflicts
constexpr int PAIRS = D / 2, LENGTH = PAIRS + 1, PER_LANE = (N + 31) / 32;
unsigned *keys = memory, *values = keys + N * LENGTH;
float* scores = reinterpret_cast<float*>(values + N * PAIRS);
float* query = scores + WARPS * N;
int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
int image = blockIdx.y / H, head = blockIdx.y % H;
const unsigned* from = reinterpret_cast<const unsigned*>(qkv) + (static_cast<long>(image) * N * 3 * H + head) * PAIRS;
for (int i = threadIdx.x; i < N * PAIRS; i += blockDim.x) {
  int token = i / PAIRS, pair = i % PAIRS;
  keys[token * LENGTH + pair] = from[(token * 3 + 1) * H * PAIRS + pair];
  values[i] = from[(token * 3 + 2) * H * PAIRS + pair];
}
__syncthreads();
int token = blockIdx.x * WARPS + warp;
if (token >= N) return;
scores += warp * N;
query += warp * D;
for (int pair = lane; pair < PAIRS; pair += 32) {
  unsigned q = from[token * 3 * H * PAIRS + pair];
  query[2 * pair] = low(q) / sqrtf(D);
  query[2 * pair + 1] = high(q) / sqrtf(D);
}
__syncwarp();
float score[PER_LANE], largest = -3.4e38f, total = 0;
#pragma unroll
for (int i = 0; i < PER_LANE; ++i) {
  int other = i * 32 + lane;
  if (other >= N) break;
  score[i] = 0;
#pragma unroll 8
  for (int pair = 0; pair < PAIRS; ++pair) {
    unsigned k = keys[other * LENGTH + pair];
    score[i] += query[2 * pair] * low(k) + query[2 * pair + 1] * high(k);
  }
  largest = fmaxf(largest, score[i]);
}
for (int i = 16; i > 0; i /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, i));
#pragma unroll
for (int i = 0; i < PER_LANE; ++i) {
  if (i * 32 + lane >= N) break;
  score[i] = expf(score[i] - largest);
  scores[i * 32 + lane] = score[i];
  total += score[i];
}
total = warp_sum(total);
__syncwarp();
for (int pair = lane; pair < PAIRS; pair += 32) {
  float first = 0, second = 0;
#pragma unroll 8
  for (int other = 0; other < N; ++other) {
    unsigned v = values[other * PAIRS + pair];
    first += scores[other] * low(v);
    second += scores[other] * high(v);
  }
  long to = ((static_cast<long>(image) * N + token) * H + head) * D + 2 * pair;
  x[to] = static_cast<T>(first / total);
  x[to + 1] = static_cast<T>(second / total);
}
"""
HALVES = """
__device__ float low(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ float high(unsigned pair) { return __uint_as_float(pair & 0xffff0000); }
"""
ATTENDING_WARPS = 8
"""Tokens of a block that attends."""
LARGEST_SHARED = 64 << 10
"""Bytes of shared memory that a block may ask for on any GPU that MLX runs on, compute capability 7.5."""


@cache
def _kernel(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], source: str, header: str = WARP_SUM
) -> Kernel:
    kernel: Any = mx.fast.cuda_kernel(
        name=name, input_names=list(inputs), output_names=list(outputs), source=source, header=header
    )
    return kernel


def _rows_by_warp(rows: int) -> dict[str, tuple[int, int, int]]:
    """Grid of a kernel that has a warp for each row."""
    per_block = THREADS // WARP
    return {"grid": (-(-rows // per_block) * THREADS, 1, 1), "threadgroup": (THREADS, 1, 1)}


def column_sums(rows: mx.array) -> mx.array:
    """[R, D] -> [D]."""
    d, threads = rows.shape[1], WARP * WARP
    (sums,) = _kernel("column_sums", ("rows",), ("sums",), COLUMN_SUMS)(
        inputs=[rows], template=[("T", rows.dtype)],
        grid=(-(-d // WARP) * threads, 1, 1), threadgroup=(threads, 1, 1),
        output_shapes=[(d,)], output_dtypes=[rows.dtype],
    )  # fmt: skip
    return sums


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


def _attend_bytes(n: int, d: int) -> int:
    return 4 * (n * (d + 1) + ATTENDING_WARPS * (n + d))


def attends(qkv: mx.array) -> bool:
    """Whether `attend` serves for these: bfloat16, of an even number a head, keys and values within shared memory."""
    n, d = qkv.shape[1], qkv.shape[-1]
    return bool(qkv.dtype == mx.bfloat16 and d % 2 == 0 and _attend_bytes(n, d) <= LARGEST_SHARED)


@cache
def _attend_kernel(n: int, d: int) -> Kernel:
    kernel: Any = mx.fast.cuda_kernel(
        name="attend", input_names=["qkv"], output_names=["x"], source=ATTEND, header=WARP_SUM + HALVES,
        shared_memory=_attend_bytes(n, d),
    )  # fmt: skip
    return kernel


def attend(qkv: mx.array) -> mx.array:
    """Attention over a few images, each token's by a warp: [B, N, 3, H, D] -> [B, N, H, D]."""
    b, n, _, h, d = qkv.shape
    threads = ATTENDING_WARPS * WARP
    (x,) = _attend_kernel(n, d)(
        inputs=[qkv], template=[("T", qkv.dtype), ("N", n), ("H", h), ("D", d), ("WARPS", ATTENDING_WARPS)],
        grid=(-(-n // ATTENDING_WARPS) * threads, b * h, 1), threadgroup=(threads, 1, 1),
        output_shapes=[(b, n, h, d)], output_dtypes=[qkv.dtype],
    )  # fmt: skip
    return x


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
