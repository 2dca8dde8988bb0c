"""What the parent of a run knows of a platform before its framework is imported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared_spec.errors import UserError
from shared_spec.ranks import World


@dataclass(frozen=True)
class Start:
    """A process to start for the ranks of a phase: the engine's launcher, or a rank itself where there is none."""

    arguments: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Threads:
    """The compute threads of one process on a CPU.

    Attributes:
        count: how many.
        places: the logical processors that each may run on; None where the system, or the launcher, decides.
    """

    count: int
    places: tuple[tuple[int, ...], ...] | None = None


def no_launcher(ranks: int, device: str, words: list[str]) -> list[Start]:
    """What a platform that cannot share its work says.

    Raises:
        UserError: always.
    """
    raise UserError("--nproc: this platform trains with one process only; leave the option out.")


@dataclass(frozen=True)
class Platform:
    """What can be said of a platform before its framework is imported.

    Attributes:
        name: as in the result, e.g. "torch-ipex".
        package: the package whose `__main__` runs a phase, e.g. "bench_torch_ipex".
        folder: its folder in a clone, e.g. "bench-torch-ipex".
        make_target: as in `make bench-TARGET`, e.g. "ipex".
        backend: "module:Class" of its Backend.
        devices, engines: what --device and --engine accept; the first is the default.
        worker_env: (device, engine, threads) -> environment variables a phase process must start with; `threads` are
            those of one of the processes that share this host.
        phase_env: (phase, device) -> what a process of this phase alone is started with besides.
        world: this process's place among the ranks, from the environment that the engine's launcher sets.
        group: "module:function" that connects the ranks: (device) -> ranks.Group, the same one at each call.
        launch: (ranks, device, words behind "python") -> what to start for that many ranks on this host.
        launcher_env: variables by which `world` knows that a launcher has started this process.
        death: pattern that finds in the launcher's output which rank died first: groups "rank" and "status", the
            latter negative for a signal. Not needed where each rank is started directly, in order of rank.
        headline_memory: names of memory figures (results: Memory); the first that was measured is the peak that is
            compared, as device memory is on one machine what the host's is on another.
        program_caches: (device, engine, environment) -> folders in which the framework and the driver keep what they have
            compiled, from one process to the next; None where nothing is known of any.
        compile_seconds: what a training step takes to compile, by device, roughly: for estimates alone.
        emulates_bf16: (device) -> whether bf16 is certainly made of other arithmetic there, whatever the processor has.
        cuda: version of CUDA that its GPU libraries are of, and what an older driver costs it.
    """

    name: str
    package: str
    folder: str
    make_target: str
    backend: str
    devices: tuple[str, ...]
    engines: tuple[str, ...]
    worker_env: Callable[[str, str, Threads], dict[str, str]]
    phase_env: Callable[[str, str], dict[str, str]] = lambda phase, device: {}
    world: Callable[[], World] = World
    group: str = "shared_spec.ranks:alone"
    launch: Callable[[int, str, list[str]], list[Start]] = no_launcher
    launcher_env: tuple[str, ...] = ()
    death: str | None = None
    headline_memory: tuple[str, ...] = ("host_peak",)
    program_caches: Callable[[str, str, Mapping[str, str]], list[Path] | None] = lambda device, engine, env: None
    compile_seconds: Mapping[str, float] = field(default_factory=dict)
    emulates_bf16: Callable[[str], bool] = lambda device: False
    cuda: tuple[str, str] | None = None
