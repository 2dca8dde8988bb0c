"""run | predict | verify | info | doctor: one command line for all three platforms.

`python -m bench_torch_ipex run --profile quick` (the other two alike).
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from shared_spec import files, places, ranks
from shared_spec.conformance.checks import run_checks
from shared_spec.errors import UserError
from shared_spec.machine import facts, provenance, topology
from shared_spec.machine.energy import wall
from shared_spec.platform import Platform, Threads
from shared_spec.results import privacy
from shared_spec.results.format import Result
from shared_spec.results.measurements import Conformance
from shared_spec.run import console, doctor, fitness, parent, phases, plug, worker
from shared_spec.run.job import Setting
from shared_spec.run.phases import Phase
from shared_spec.run.request import DEFAULT_TIME_LIMIT, Request, Scaling
from shared_spec.run.screen import JsonEvents
from shared_spec.workload import params
from shared_spec.workload.spec import PRECISIONS, load_spec

Command = Callable[..., Any]

STOPPED = (
    "Stopped. Finished phases are kept, and so is a full training up to its last checkpoint; "
    "the same command goes on from there."
)


class _Group(click.Group):
    """A click group that tells UserErrors as one sentence and ends cleanly at Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            console.leave_quietly()
        except OSError as error:
            raise click.ClickException(failed_file(error)) from error
        except KeyboardInterrupt:
            click.echo(f"\n{STOPPED}", err=True)
            sys.exit(130)


def _options(platform: Platform) -> Callable[[Command], Command]:
    """Options that every command takes, with this platform's own choices."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--spec", "spec_path", type=click.Path(path_type=Path), help="Another workload than the standard one."
            ),
            click.option(
                "--engine", type=click.Choice(platform.engines), default=platform.engines[0], show_default=True
            ),
            click.option(
                "--device", type=click.Choice(platform.devices), default=platform.devices[0], show_default=True
            ),
            click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True),
        ):
            command = option(command)
        return command

    return add


def _enter_worker_env(platform: Platform, device: str, engine: str, threads: Threads | None = None) -> None:
    """Start this process anew with the platform's environment, unless it has it: libraries read it at load time."""
    marker = "DEIT_BENCH_WORKER"
    if os.environ.get(marker) != "1":
        threads = threads or topology.threads(platform.world().local_size)
        env = {**os.environ, **platform.worker_env(device, engine, threads), marker: "1"}
        os.execve(sys.executable, [sys.executable, "-m", platform.package, *sys.argv[1:]], env)


def _chosen_phases(text: str | None, defaults: tuple[str, ...]) -> tuple[Phase, ...]:
    if text is None:
        return phases.chosen(defaults)
    names = [word.strip() for word in text.split(",") if word.strip()]
    for name in names:
        if name not in phases.BY_NAME:
            raise UserError(f"--phases: {name!r} is no phase; choose from {', '.join(phases.BY_NAME)}.")
    if not names:
        raise UserError(f"--phases: name at least one of {', '.join(phases.BY_NAME)}.")
    return phases.chosen(names)


def _checked_power(ctx: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """What --power-watts says, a log by its absolute path; it can be read."""
    if text is None or (log := wall.parse(text).log) is None:
        return text
    wall.read_log(log)
    return str(log.absolute())


def _run_command(platform: Platform) -> click.Command:
    @click.command("run")
    @_options(platform)
    @click.option("--profile", type=click.Choice(["quick", "full"]), default="full", show_default=True)
    @click.option(
        "--data", help="Folder or archive of CIFAR-100, or 'synthetic'.  [default: $CIFAR100_DIR, cache, download]"
    )
    @click.option("--phases", "phases_text", help="Only these, separated by commas.")
    @click.option("--out", type=click.Path(path_type=Path), default="results", show_default=True)
    @click.option("--fresh", is_flag=True, help="Start over instead of going on with an unfinished run.")
    @click.option(
        "--keep-weights", is_flag=True, help="Leave the weights of a full training beside the result, for predict."
    )
    @click.option(
        "--stop",
        type=click.Choice(["target", "epochs"]),
        default="epochs",
        show_default=True,
        help="When a full training ends.",
    )
    @click.option(
        "--seeds", type=click.IntRange(1), help="Full trainings, each with the next seed.  [default: the profile's]"
    )
    @click.option("--close", is_flag=True, help="Run nothing: write the result of what an unfinished run has.")
    @click.option("--power-watts", callback=_checked_power, help=f"What a wall meter shows: {wall.FORMS}.")
    @click.option(
        "--max-batch",
        "largest_batch",
        type=click.IntRange(1),
        default=65536,
        show_default=True,
        help="Largest training batch that is tried.",
    )
    @click.option(
        "--memory-share",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.7,
        show_default=True,
        help="Part of the physical memory that a try may take on a CPU or a Mac.",
    )
    @click.option(
        "--nproc", "ranks", type=click.IntRange(1), default=1, show_default=True,
        help="Train with this many processes of this machine, one a device, through the engine's own launcher.",
    )  # fmt: skip
    @click.option(
        "--scaling", type=click.Choice(["strong", "weak"]), default="strong", show_default=True,
        help="strong: the spec's batch is shared by all processes; weak: each takes a batch of that size.",
    )  # fmt: skip
    @click.option(
        "--rank-timeout", type=click.FloatRange(1), default=ranks.DEFAULT_TIMEOUT, show_default=True,
        help="Seconds of silence after which a process of several is given up.",
    )  # fmt: skip
    @click.option(
        "--time-limit", type=click.FloatRange(0), default=DEFAULT_TIME_LIMIT, show_default=True,
        help="How many times its estimate, and five minutes, a phase may take; after half of that it ends with what it "
        "has.  0: no limit.",
    )  # fmt: skip
    @click.option(
        "--threads", type=click.IntRange(1), help="Compute threads of each process on a CPU.  [default: one a core]"
    )
    @click.option(
        "--cores", type=click.Choice(["performance", "all"]), default="performance", show_default=True,
        help="Which cores of a CPU compute, where it has two kinds.",
    )  # fmt: skip
    @click.option("--emulated", is_flag=True, help="Measure bf16 even where the machine has no instructions for it.")
    @click.option("--json-events", is_flag=True, help="Tell programs what happens: one JSON object a line.")
    def command(
        spec_path: Path | None, profile: str, data: str | None, phases_text: str | None, json_events: bool, out: Path,
        fresh: bool, keep_weights: bool, largest_batch: int, memory_share: float, scaling: Scaling, time_limit: float,
        emulated: bool, close: bool,
        **setting: Any,
    ) -> None:  # fmt: skip
        """Measure this machine and write one result file."""
        spec = load_spec(spec_path)
        request = Request(
            platform, Setting(spec, profile, **setting), _chosen_phases(phases_text, spec.profile(profile).phases), out,
            data or None, fresh, largest_batch, memory_share, keep_weights, scaling, time_limit, emulated,
        )  # fmt: skip
        if (seeds := request.setting.seeds) is not None and seeds > (named := len(spec.training.seeds)):
            raise UserError(f"--seeds {seeds}: the spec names {named}; choose at most as many.")
        if close:
            _fail_on_bad_phases(parent.close(request, console.screen(sys.stdout)))
        elif platform.world().size > 1:
            _run_as_rank(request, json_events)
        else:
            _run(request, ranks.ALONE, json_events)

    return command


def _run(request: Request, group: ranks.Group, json_events: bool) -> None:
    """Run as the one process that keeps the run's folder and shows the screen."""
    option = "--nproc" if group is ranks.ALONE else "the launcher"
    ranks.check_batch(request.batch_size, request.setting.ranks, option)
    if not request.planned_phases:
        shared = ", ".join(phase.name for phase in phases.PHASES if phase.ranks == "all")
        raise UserError(f"--phases: several ranks share only {shared}; name one of these.")
    display = JsonEvents(console.lasting(sys.stdout)) if json_events else console.screen(sys.stdout)
    try:
        path, result = parent.execute(request, display, group)
    except UserError as error:
        display.ended("error", str(error))
        raise
    except BrokenPipeError:
        raise
    except OSError as error:
        display.ended("error", failed_file(error))
        raise UserError(failed_file(error)) from error
    except KeyboardInterrupt:
        display.ended("stopped", STOPPED)
        raise
    display.result(str(path), [outcome.phase for outcome in result.phases if outcome.status != "ok"])
    _fail_on_bad_phases(result)


def failed_file(error: OSError) -> str:
    """A file that could not be read or written, as a sentence."""
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror or error}. What phases have measured is kept in the results folder; make room there, or "
        "mend what is wrong, and the same command goes on."
    )


def _run_as_rank(request: Request, json_events: bool) -> None:
    """Run as one of the ranks that an engine's launcher has started."""
    platform, setting, world = request.platform, request.setting, request.platform.world()
    if setting.ranks not in (1, world.size):
        raise UserError(f"--nproc {setting.ranks}: the launcher has started {world.size} ranks; leave --nproc out.")
    fitness.refuse(platform, replace(setting, ranks=world.size), request.emulated)
    threads = replace(setting, ranks=world.size).compute_threads(world)
    _enter_worker_env(platform, setting.device, setting.engine, threads)
    setting.take_cores(world.local_rank, world.local_size)
    os.environ[ranks.TIMEOUT_ENV] = str(setting.rank_timeout)
    group = worker.connect(platform, setting.device)
    request = replace(request, setting=replace(setting, ranks=group.size))
    if group.rank == 0:
        _run(request, group, json_events)
    else:
        parent.follow(request, group)


def _fail_on_bad_phases(result: Result) -> None:
    """Leave with status 1 where a phase failed or the model is not the specified one; the result stands all the same."""
    if failed := [outcome.phase for outcome in result.phases if outcome.status != "ok"]:
        raise UserError(f"Failed: {', '.join(failed)}; the same command tries only these again.")
    if not all(conformance.passed for conformance in result.measured(Conformance)):
        raise UserError("Conformance failed: this is not the specified workload, and its numbers are not comparable.")
    if wrong := [f"{phase}: {check.name}" for phase, check in result.failed_checks()]:
        raise UserError(
            f"Conformance failed ({', '.join(dict.fromkeys(wrong))}): what was timed is not the specified workload, and "
            "its numbers are not comparable."
        )


def read_images(path: Path) -> np.ndarray:
    """Read uint8 [N,32,32,3] from a .npy file.

    Raises:
        UserError: the file is unreadable, or its shape or dtype is another.
    """
    try:
        with path.open("rb") as file:
            images: np.ndarray = np.load(file, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give a .npy file of images.") from error
    except Exception as error:  # damaged headers and archives end in a dozen kinds of error
        raise UserError(f"{path}: is not a .npy file of numbers; write it with numpy.save.") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise UserError(f"{path}: has dtype {getattr(images, 'dtype', 'of an archive')}, expected uint8.")
    if images.ndim != 4 or images.shape[1:] != (32, 32, 3) or not len(images):
        raise UserError(f"{path}: has shape {list(images.shape)}, expected [N, 32, 32, 3] with N at least 1.")
    return images


def _predict_command(platform: Platform) -> click.Command:
    @click.command("predict")
    @_options(platform)
    @click.option(
        "--weights",
        required=True,
        help="safetensors file with timm's names, or 'init'.",
    )
    @click.option(
        "--images", "images_path", required=True, type=click.Path(path_type=Path), help=".npy, uint8 [N,32,32,3]."
    )
    @click.option(
        "--out", required=True, type=click.Path(path_type=Path), help=".npy to write, float32 logits [N,100]."
    )
    def command(
        spec_path: Path | None, engine: str, device: str, precision: str, weights: str, images_path: Path, out: Path
    ) -> None:
        """Compute logits of images with given weights."""
        spec = load_spec(spec_path)
        images = read_images(images_path)
        values = params.initial(spec) if weights == "init" else params.load(spec, Path(weights))
        _enter_worker_env(platform, device, engine)
        backend = worker.make_backend(platform, spec, device, precision, engine)
        backend.load_params(values)
        size = min(len(images), spec.training.eval_batch_size)
        logits = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padded = np.resize(part, (size, *part.shape[1:]))  # one batch size, one compilation
            logits.append(backend.to_numpy(backend.infer(backend.to_device(padded, None)))[: len(part)])
        write_npy(out, np.concatenate(logits).astype(np.float32))

    return command


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, atomically.

    Raises:
        UserError: the folder does not exist or cannot be written to.
    """
    with tempfile.SpooledTemporaryFile(max_size=1 << 28) as buffer:
        np.save(buffer, array)
        buffer.seek(0)
        try:
            files.write_atomic(path, buffer.read())
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --out.") from error


def _verify_command(platform: Platform) -> click.Command:
    @click.command("verify")
    @_options(platform)
    def command(spec_path: Path | None, engine: str, device: str, precision: str) -> None:
        """Prove that this machine computes the specified model, gradients and updates."""
        spec = load_spec(spec_path)
        _enter_worker_env(platform, device, engine)

        backend = worker.make_backend(platform, spec, device, precision, engine)
        checks = run_checks(backend, spec, precision)
        table = Table("check", "figure", "bound", "", title=f"{platform.name} ({engine}) on {device}, {precision}")
        for check in checks:
            figure = "nan" if check.figure is None else f"{check.figure:.3g}"
            table.add_row(check.name, figure, f"{check.bound:.3g}", "ok" if check.passed else "FAILED")
        console.of(sys.stdout).print(table)
        if failed := [check for check in checks if not check.passed]:
            raise UserError("; ".join(f"{check.name}: {check.detail}" for check in failed))

    return command


def _info_command(platform: Platform) -> click.Command:
    @click.command("info")
    @_options(platform)
    def command(spec_path: Path | None, engine: str, device: str, precision: str) -> None:
        """Print what would run here, as JSON: backend, environment, versions."""
        spec = load_spec(spec_path)
        _enter_worker_env(platform, device, engine)
        worker_env = platform.worker_env(
            device, engine, topology.threads()
        )  # before a framework binds this process to a core
        backend = worker.make_backend(platform, spec, device, precision, engine)
        content = {
            "platform": platform.name,
            "spec_fingerprint": spec.fingerprint,
            "backend": backend.describe(),
            "worker_env": worker_env,
            "environment": facts.collect(device),
            "software": provenance.software(),
        }
        click.echo(json.dumps(privacy.scrub(content), indent=1))

    return command


def _power_command(platform: Platform) -> click.Command:
    @click.command("power")
    @click.argument("result", type=click.Path(path_type=Path))
    @click.argument("log", type=click.Path(path_type=Path))
    def command(result: Path, log: Path) -> None:
        """Put the energy that a smart plug has logged into RESULT; LOG is its CSV file, with time and watts."""
        click.echo(plug.put_in(result, log))

    return command


def _doctor_command(platform: Platform) -> click.Command:
    @click.command("doctor")
    @_options(platform)
    @click.option("--profile", type=click.Choice(["quick", "full"]), default="full", show_default=True)
    @click.option("--data", help="As for run.")
    @click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="results", show_default=True)
    @click.option("--power-watts", callback=_checked_power, help="As for run.")
    def command(spec_path: Path | None, profile: str, data: str | None, out: Path, **setting: Any) -> None:
        """Look at this machine, measuring nothing: what is amiss, what will be null, and the command that mends it."""
        spec = load_spec(spec_path)
        chosen = phases.chosen(spec.profile(profile).phases)
        findings = doctor.examine(doctor.look(Request(platform, Setting(spec, profile, **setting), chosen, out, data)))
        click.echo(privacy.scrub(doctor.told(findings)))
        if bad := [finding.check for finding in findings if finding.state == "bad"]:
            raise UserError(f"A run would fail or mislead here: {', '.join(bad)}.")

    return command


def _phase_command(platform: Platform) -> click.Command:
    @click.command("_phase", hidden=True)
    @click.argument("job", type=click.Path(path_type=Path))
    @click.argument("events")
    def command(job: Path, events: str) -> None:
        """Body of a phase process; `run` starts it. EVENTS: a descriptor, or a named pipe where there are ranks."""
        one = events.isdecimal()
        sys.exit(worker.main(platform, job, int(events)) if one else worker.main_of_rank(platform, job, Path(events)))

    return command


def group(platform: Platform) -> click.Group:
    """The command line of `platform`."""
    commands = _Group(
        platform.package, help=f"deit-bench on {platform.name}: measure, verify and use the specified DeiT-small."
    )
    for make in (
        _run_command, _predict_command, _verify_command, _info_command, _doctor_command, _power_command, _phase_command,
    ):  # fmt: skip
        commands.add_command(make(platform))
    return commands


def main(platform: Platform) -> None:
    """Entry point of a platform's `__main__`."""
    console.let_all_be_written()
    places.name_the_user()
    group(platform)(prog_name=f"python -m {platform.package}")
