"""What XLA's compiler makes of the training step for a GPU that need not be there: kernels, and bytes that they move.

    .venv/bin/python benchmarks/gpu_program.py step --precision bf16 --batch 256 step.hlo
    python3 -m venv /tmp/xla && /tmp/xla/bin/pip install -r benchmarks/requirements-xla-gpu.txt
    /tmp/xla/bin/python benchmarks/gpu_program.py kernels step.hlo

Two environments, since TensorFlow and JAX bring an XLA each; JAX's is a little newer or older than the one that runs in
the benchmark, and nothing is tuned without a GPU. So this tells which kernels there are and what they read and write,
not how long they take. Operands that are the flat vector of all parameters are not counted: of it a kernel reads slices.
"""

import math
import os
import re
from collections import Counter
from pathlib import Path

import click

CARD = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  threads_per_core_limit: {threads} shared_memory_per_core: {shared} shared_memory_per_block_optin: {optin}
  core_count: {cores} fpus_per_core: 128 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {l2} clock_rate_ghz: {ghz} device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 3 }} runtime_version {{ major: 12 minor: 5 }}
device_description_str: "{name}"
"""
"""XLA's description of a card, as its GpuTargetConfigProto."""
HOPPER = {"major": 9, "minor": 0, "threads": 2048, "shared": 233472, "optin": 232448}
ADA = {"major": 8, "minor": 9, "threads": 1536, "shared": 102400, "optin": 101376}
AMPERE = ADA | {"minor": 6}
"""Limits of compute capabilities 9.0, 8.9 and 8.6, by the CUDA programming guide."""
CARDS = {
    "h200": HOPPER | {
        "name": "NVIDIA H200", "cores": 132, "ghz": 1.98,
        "bandwidth": 4_800_000_000_000, "l2": 50 << 20, "memory": 150_000_000_000,
    },
    "rtx4090": ADA | {
        "name": "NVIDIA GeForce RTX 4090", "cores": 128, "ghz": 2.52,
        "bandwidth": 1_008_000_000_000, "l2": 72 << 20, "memory": 24_000_000_000,
    },
    "rtx3060": AMPERE | {
        "name": "NVIDIA GeForce RTX 3060", "cores": 28, "ghz": 1.78,
        "bandwidth": 360_000_000_000, "l2": 3 << 20, "memory": 12_000_000_000,
    },
}  # fmt: skip
"""Sizes from NVIDIA's datasheets."""

FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"  # both choices need a GPU to try them on
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "u8": 1, "pred": 1, "s32": 4, "u32": 4, "s64": 8}  # s8 is cuBLAS' workspace


@click.group()
def main() -> None:
    """Look at the training step as a program for a GPU."""


@main.command()
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.argument("out", type=click.Path(path_type=Path))
def step(precision: str, batch: int, out: Path) -> None:
    """Write the training step as XLA gets it from TensorFlow."""
    import tensorflow as tf

    from bench_tf_cuda.backend import TfBackend
    from shared_spec.workload.spec import load_spec

    spec = load_spec()
    backend = TfBackend(spec, "cpu", precision, "xla")
    images = tf.zeros((batch, spec.data.image_size, spec.data.image_size, 3), tf.uint8)
    arguments = (images, tf.zeros((batch, spec.model.classes)), tf.constant(0.0))
    out.write_text(backend._compiled_step.experimental_get_compiler_ir(*arguments)(stage="hlo"))


def compiled(hlo: str, card: str) -> str:
    """The program that XLA's GPU pipeline makes of an HLO module, as text."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "XLA_FLAGS": FLAGS}
    import jax_plugins.xla_cuda12 as cuda
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jaxlib.mlir import ir

    cuda._load_nvidia_libraries()
    plugin = xla_client.load_pjrt_plugin_dynamically("cuda", str(cuda._get_library_path()))
    xla_client.initialize_pjrt_plugin("cuda")
    target = CARD.format(**CARDS[card])
    topology = xla_client.make_c_api_device_topology(plugin, "1x1x1", topology="1x1x1", target_config=target)
    devices = topology._make_compile_only_devices()
    # TensorFlow copies what it returns, an operation that the way to JAX's compiler does not know.
    module = xla_client._xla.hlo_module_from_text(hlo.replace(" copy(", " reshape("))
    stable = xla_client._xla.mlir.hlo_to_stablehlo(module.as_serialized_hlo_module_proto())
    with mlir.make_ir_context():
        program = ir.Module.parse(stable)
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    executable = devices[0].client.compile(program, xla_client.DeviceList(tuple(devices)), options)
    return executable.hlo_modules()[0].to_string()


def size(shape: str, parameters: str) -> int:
    """Bytes of all arrays in an HLO type; `parameters` is the length of the flat vector, which is left out."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(
        BYTES.get(kind, 0) * math.prod(int(n) for n in sides.split(",") if n)
        for kind, sides in arrays
        if sides != parameters
    )


def kernels_of(program: str) -> list[tuple[str, int]]:
    """Kind, and bytes read and written, of each kernel of a compiled program."""
    entry = program[program.index("\nENTRY") :]
    parameters = max(re.findall(r"f32\[(\d+)\]", entry), key=int)
    sizes: dict[str, int] = {}
    found = []
    for name, shape, operation, operands in re.findall(r"%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)", entry):
        sizes[name] = size(shape, parameters)
        if operation in ("fusion", "custom-call", "copy"):
            moved = sizes[name] + sum(sizes.get(operand, 0) for operand in re.findall(r"%([\w.\-]+)", operands))
            found.append(("product" if operation == "custom-call" else re.sub(r"[.\d]+$", "", name), moved))
    return found


@main.command()
@click.option("--card", type=click.Choice(list(CARDS)), default="h200", show_default=True)
@click.argument("hlo", type=click.Path(exists=True, path_type=Path))
def kernels(card: str, hlo: Path) -> None:
    """Compile a step for a card and list its kernels by kind."""
    found = kernels_of(compiled(hlo.read_text(), card))
    count, moved = Counter(kind for kind, _ in found), Counter[str]()
    for kind, nbytes in found:
        moved[kind] += nbytes
    for kind, nbytes in moved.most_common():
        click.echo(f"{count[kind]:5d}  {nbytes / 1e9:8.3f} GB  {kind}")
    click.echo(f"{len(found):5d}  {sum(moved.values()) / 1e9:8.3f} GB  in all")


if __name__ == "__main__":
    main()
