"""Time and memory of comparing 1,000 result files: `python -m aggregate.benchmarks.thousand_files` (root of a clone).

Asked for: under 20 seconds and under 1 GB on two cores. The files are of the full profile, of 24 things measured again
and again; writing them is not timed.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aggregate.tests.factory import FULL_PHASES, make_result, save

FILES = 1000


def write(folder: Path) -> None:
    """FILES results of 24 things: three platforms, two precisions, four devices."""
    for i in range(FILES):
        platform = ("mlx", "tf-cuda", "torch-ipex")[i % 3]
        precision, device = ("fp32", "bf16")[i // 3 % 2], f"Device {i // 6 % 4}"
        result = make_result(
            platform, precision=precision, device_name=device, phases=FULL_PHASES, repeats=2, number=i
        )  # fmt: skip
        save(result, folder, f"{i:04}.json")


def main() -> None:
    """Write the files, compare them, and say what that took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        size = sum(path.stat().st_size for path in folder.glob("*.json"))
        start = time.monotonic()
        command = [sys.executable, "-m", "aggregate", str(folder), "--out", str(folder / "report"), "--format", "csv"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    print(f"{FILES} files, {size / 2**20:.0f} MiB: {seconds:.1f} s, peak {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
