"""What the platforms' tests share: a small workload, the real command line, two hosts in one, a check by its name."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from shared_spec import files
from shared_spec.backend import Backend
from shared_spec.conformance.optimizer import check_adamw, check_second_step
from shared_spec.conformance.order import order_checks
from shared_spec.conformance.precision import precision_checks
from shared_spec.results.quantities import Check
from shared_spec.workload.spec import Spec, load_spec, parse_spec

ADDRESSES = ("10.111.0.1", "10.111.0.2")
"""Of the two hosts of `two_hosts`."""
INTERFACES = ("deit-veth0", "deit-veth1")


def small_spec(epochs: int) -> Spec:
    """The standard workload, small enough for steps in milliseconds: 8 of them an epoch, global batch 8, a process a phase."""
    content = load_spec().to_dict()
    content["model"] |= {"image_size": 64, "dim": 32, "depth": 1, "heads": 2, "mlp_dim": 64}
    content["data"] |= {"train_images": 64, "test_images": 30}
    content["training"] |= {"batch_size": 8, "eval_batch_size": 8, "epochs": epochs}
    content["measuring"] |= {"block_seconds": 0.01}
    for profile in content["profiles"].values():
        for window in ("idle", "warmup_max", "window"):
            profile[f"{window}_seconds"] = 0.01
        profile |= {"window_min_steps": 4, "step_samples": 2, "repeats": 1, "max_repeats": 1}
    return parse_spec(content, "small spec")


def command(package: str, spec: Spec, out: Path, *more: object) -> list[str]:
    """Words that run `package` on the synthetic stand-in with `spec`, behind the interpreter."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "spec.in"  # not .json: those are results
    file.write_text(json.dumps(spec.to_dict()))
    words = ("--spec", file, "--profile", "quick", "--data", "synthetic", "--out", out, *more)
    return ["-m", package, "run", *map(str, words)]


def run(package: str, spec: Spec, out: Path, *more: object) -> dict[str, Any]:
    """Run to the end, and return the result."""
    line = [sys.executable, *command(package, spec, out, *more)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr + logs(out))
    return newest_result(out)


def check_named(name: str, backend: Backend, spec: Spec, precision: str) -> Check:
    """The check of that name of conformance's faster ones, which need no golden values."""
    if name.startswith("infer"):
        checks = order_checks(backend, spec, precision)
    elif name.startswith("second step"):
        check_adamw(backend, spec)
        checks = check_second_step(backend, spec)
    else:
        checks = precision_checks(backend, spec, precision)
    return next(check for check in checks if check.name == name)


def newest_result(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = files.read(max(out.glob("*.json"), key=lambda path: path.stat().st_mtime_ns))
    return result


def logs(out: Path) -> str:
    """What the processes of an unfinished run have written."""
    return "".join(path.read_text(errors="replace") for path in out.glob(".runs/**/*.log"))


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What `condition` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited for {seconds:.0f} s")
        time.sleep(0.05)
    return value


def rank_process(parent: int, variable: str, rank: int) -> psutil.Process:
    """The process of a rank: a descendant of `parent` that runs a phase and has its rank in `variable`."""
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "_phase" in process.cmdline() and process.environ().get(variable) == str(rank):
                return process
    raise AssertionError(f"there is no rank {rank}")


def kill_one_of_two(
    package: str, spec: Spec, out: Path, find: Callable[[int, int], psutil.Process], *asked: object
) -> dict[str, Any]:
    """Train with two ranks, kill rank 1 with SIGKILL once there is a checkpoint, and see both end.

    Args:
        find: (process of the run, rank) -> that rank's process.

    Returns:
        The outcome of the phase that was asked for.
    """
    line = [sys.executable, *command(package, spec, out, *asked, "--nproc", 2)]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: list(out.glob(".runs/*/convergence-0.safetensors")))
    ranks = [find(parent.pid, rank) for rank in range(2)]
    ranks[1].kill()
    output, _ = parent.communicate(timeout=240)
    if parent.returncode != 1:
        raise AssertionError(f"exit status {parent.returncode}: {output}")
    _, alive = psutil.wait_procs(ranks, timeout=5)
    if any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in alive):
        raise AssertionError(f"still there: {alive}")
    (outcome,) = newest_result(out)["phases"]
    return dict(outcome)


def why_not_two_hosts() -> str | None:
    """Why `two_hosts` cannot be had here; None where it can."""
    if not sys.platform.startswith("linux") or os.geteuid() or not shutil.which("ip"):
        return "NOT TESTED ON TWO HOSTS: it takes Linux, root and iproute2"
    return None


@contextlib.contextmanager
def two_hosts() -> Iterator[list[list[str]]]:
    """Two network namespaces joined by a veth pair, each with an address of its own (ADDRESSES).

    Yields:
        For each of them the words that run a command in it.
    """
    names = [f"deit-{os.getpid()}-host{number}" for number in range(2)]  # other test runs may have theirs

    def ip(*words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words], check=check, capture_output=True)

    def remove() -> None:
        for name in names:
            ip("netns", "delete", name, check=False)

    remove()
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", INTERFACES[0], "netns", names[0], "type", "veth", "peer", INTERFACES[1], "netns", names[1])
        for name, interface, address in zip(names, INTERFACES, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", interface)
            ip("-n", name, "link", "set", interface, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        remove()


def run_on_hosts(lines: list[list[str]], envs: list[dict[str, str]]) -> list[subprocess.Popen[str]]:
    """Start one command a host, its output kept."""
    return [
        subprocess.Popen(
            line, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL,
        )
        for line, env in zip(lines, envs, strict=True)
    ]  # fmt: skip
