"""What other people's machines do to a run: folders, locks, consoles, clocks, time limits and stale jobs."""

import errno
import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fake_platform.backend import PLATFORM, launch
from fake_runs import asked, command, fake, only_result, quick, start
from results.test_format import EXAMPLE
from rich.console import Console

from shared_spec import files, places, ranks
from shared_spec.errors import UserError
from shared_spec.machine import facts, watch
from shared_spec.measure.timing import Stepper
from shared_spec.platform import Start
from shared_spec.results import format
from shared_spec.run import console, lock, phases
from shared_spec.run.child import kill_family
from shared_spec.run.console import Lasting
from shared_spec.run.job import RESERVE, OutcomeFile, Setting
from shared_spec.run.plan import Left, Plan
from shared_spec.run.request import Request
from shared_spec.run.screen import Screen
from shared_spec.workload import params
from shared_spec.workload.spec import Spec


def failing(number: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


# 2: names


def test_a_result_of_another_run_is_never_overwritten(tmp_path: Path) -> None:
    one = format.parse(EXAMPLE)
    runs = [one.model_copy(update={"run_id": run_id}) for run_id in ("a" * 16, "b" * 16, "b" * 8 + "c" * 8)]
    paths = [format.write(run, tmp_path) for run in runs]
    assert len(set(paths)) == 3
    assert [files.read(path)["run_id"] for path in paths] == [run.run_id for run in runs]
    assert [format.write(run, tmp_path) for run in runs] == paths  # the same run's is replaced
    assert len(list(tmp_path.iterdir())) == 3


def test_of_two_that_write_at_once_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.write_new(tmp_path / "a.json", 1)
    assert not files.write_new(tmp_path / "a.json", 2)
    monkeypatch.setattr(os, "link", failing(errno.EPERM))  # exFAT
    assert files.write_new(tmp_path / "b.json", 1)
    assert not files.write_new(tmp_path / "b.json", 2)
    assert [files.read(tmp_path / name) for name in ("a.json", "b.json")] == [1, 1]
    assert len(list(tmp_path.iterdir())) == 2


# 5: folders


def dangling(folder: Path) -> Path:
    (folder / "results").symlink_to(folder / "gone")
    return folder / "results"


def a_file(folder: Path) -> Path:
    (folder / "results").write_text("x")
    return folder / "results"


def beneath_a_file(folder: Path) -> Path:
    return a_file(folder) / "deeper"


@pytest.mark.parametrize("make", [dangling, a_file, beneath_a_file])
def test_an_unusable_results_folder_is_told_before_anything_is_measured(
    make: Callable[[Path], Path], spec_file: Path, tmp_path: Path
) -> None:
    out = make(tmp_path)
    done = quick(spec_file, out, "--json-events")
    assert done.returncode == 1
    assert str(out) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert event["event"] == "error"
    assert str(out) in event["text"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES])
def test_a_folder_that_takes_no_file_is_refused(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "try_to_write", failing(number))
    with pytest.raises(UserError, match=rf"--out .*{os.strerror(number)}.*choose another --out"):
        places.check_results(tmp_path, 1)


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MiB are free there and the run needs"):
        places.check_results(tmp_path, 1 << 60)
    places.check_results(tmp_path / "new", 1)
    assert not list((tmp_path / "new").iterdir())


def test_a_limit_of_file_sizes_is_a_sentence(spec_file: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fake_platform", *map(str, asked(spec_file, tmp_path / "r", "latency"))]
    limited = (
        "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    python_path = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parents[2])))
    done = subprocess.run(
        [sys.executable, "-c", limited, *words], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": python_path},
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be written to (File too large)" in done.stderr
    assert "Traceback" not in done.stderr


def test_on_a_disk_that_others_fill_an_outcome_has_its_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / RESERVE).write_bytes(b"x")
    write = files.write

    def full(path: Path, value: Any) -> None:
        if (tmp_path / RESERVE).exists():
            failing(errno.ENOSPC)()
        write(path, value)

    monkeypatch.setattr(files, "write", full)
    file = OutcomeFile(tmp_path / "00-training-0.json")
    file.write({"status": "ok"})
    assert file.read() == {"status": "ok"}


def test_a_disk_that_is_full_at_the_end_says_so_and_keeps_what_was_measured(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "write", failing(errno.ENOSPC))
    done = quick(spec_file, tmp_path, "--json-events", phases="latency")
    assert done.returncode == 1
    assert "No space left on device" in json.loads(done.stdout.splitlines()[-1])["text"]
    assert "the same command goes on" in done.stderr
    monkeypatch.undo()
    again = quick(spec_file, tmp_path, phases="latency")
    assert again.returncode == 0, again.stderr
    assert "1 of 1 phases" in again.stdout


def test_an_outcome_that_cannot_be_read_is_measured_again(tmp_path: Path) -> None:
    file = OutcomeFile(tmp_path / "00-training-0.json")
    file.path.write_text('{"status": "o')
    assert not file.is_whole()
    assert file.status is None


# 6: file systems without locks or modes


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_flock_has_another_lock(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with lock.held(tmp_path) as warning:
        assert warning is None
        with pytest.raises(UserError, match="under way"), lock.held(tmp_path):
            pass
    with lock.held(tmp_path):
        pass
    owner = {"host": "elsewhere", "pid": 1, "started": 1.0}
    (tmp_path / "lock.owner").write_text(json.dumps(owner))
    with pytest.raises(UserError, match=r"on elsewhere; if it is over, remove .*lock\.owner"), lock.held(tmp_path):
        pass
    (tmp_path / "lock.owner").write_text(
        json.dumps({**owner, "host": os.uname().nodename})
    )  # pid 1 is younger, or older
    with lock.held(tmp_path):
        pass


def test_where_nothing_locks_the_run_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    monkeypatch.setattr(lock, "_created", failing(errno.EOPNOTSUPP))
    with lock.held(tmp_path) as warning:
        assert warning == lock.UNLOCKED


def test_a_lock_that_its_holder_has_removed_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, path = fcntl.flock, tmp_path / "lock"

    def late(file: Any, operation: int) -> None:
        flock(file, operation)
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()  # who held it has cleared the folder meanwhile

    monkeypatch.setattr(fcntl, "flock", late)
    with lock.held(tmp_path):
        assert path.exists()
        with pytest.raises(UserError, match="under way"), lock.held(tmp_path):
            pass


def test_modes_and_syncs_that_a_file_system_lacks_end_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chmod", failing(errno.EPERM))
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    files.write(tmp_path / "a.json", 1)
    assert files.read(tmp_path / "a.json") == 1
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.write(tmp_path / "a.json", 2)
    assert files.read(tmp_path / "a.json") == 1


# 7: what is no regular file


def test_devices_and_pipes_are_written_through_and_links_followed(tmp_path: Path) -> None:
    files.write_atomic(Path("/dev/null"), b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("there")
    files.write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_atomic(tmp_path / "pipe", b"through")
    assert os.read(reader, 100) == b"through"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_predict_writes_to_standard_output(spec_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 32, 32, 3), np.uint8))
    words = (
        "predict",
        "--spec",
        spec_file,
        "--weights",
        "init",
        "--images",
        tmp_path / "x.npy",
        "--out",
        "/dev/stdout",
    )
    line, environment = command(*words)
    done = subprocess.run(line, env=environment, capture_output=True, timeout=240, check=True)
    assert np.load(io.BytesIO(done.stdout)).shape == (1, 100)


# 9, 10 and the other words of a run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, now: list[float], **environ: str) -> str:
    screen = console.screen(stream, environ)
    screen._clock = lambda: now[0]
    screen.phase_starts("training 1", 90.0)
    now[0] += 31.0
    screen.progress("training 1", 0.5, "steps", {"images_per_second": 12.0}, Left(31.0, 62.0))
    screen.phase_ends("training 1", 62.0, None, "fine")
    screen.close()
    return stream.getvalue()


def test_force_color_makes_no_terminal_of_a_log() -> None:
    text = shown(io.StringIO(), [0.0], FORCE_COLOR="1")
    assert "\x1b[32mok" in text
    assert "\x1b[?25l" not in text  # no cursor is hidden
    assert "\r" not in text
    assert console.of(io.StringIO(), {"FORCE_COLOR": "1"}).width >= 120
    assert "\x1b" not in shown(io.StringIO(), [0.0])


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_without_a_bar_a_line_now_and_then_says_how_far_a_phase_is(stream: type[io.StringIO]) -> None:
    text = shown(stream(), [0.0], TERM="dumb")
    assert "training 1: started, about 1 min 30 s" in text
    assert "training 1: 50%, steps, 12 images/s; 31 s left, 1 min 02 s in all" in text


def test_the_last_line_can_be_written_anywhere(spec_file: Path, tmp_path: Path) -> None:
    out = os.fsencode(tmp_path) + b"/caf\xe9"
    done = fake(*asked(spec_file, Path(os.fsdecode(out)), "latency"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "caf\\udce9" in done.stdout
    assert len([name for name in os.listdir(out) if name.endswith(b".json")]) == 1


def test_head_ends_a_run_as_it_ends_other_commands(spec_file: Path, tmp_path: Path) -> None:
    run = start(*asked(spec_file, tmp_path / "r", "ceiling,latency"))
    assert run.stdout is not None
    run.stdout.close()
    assert run.wait(60) == console.EXIT_NO_READER
    assert run.stderr is not None
    with run.stderr as said:
        assert "Traceback" not in said.read()


def test_a_lost_terminal_or_a_full_log_ends_nothing() -> None:
    class Lost(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    Screen(Console(file=Lasting(Lost()))).note("x")  # type: ignore[arg-type]
    broken = Lost()
    broken.write = failing(errno.EPIPE)  # type: ignore[method-assign]
    with pytest.raises(BrokenPipeError):
        Lasting(broken).write("x")


@pytest.mark.parametrize(("year", "wrong"), [(1973, True), (2026, False), (2131, True)])
def test_a_clock_that_is_not_set_is_told(year: int, wrong: bool) -> None:
    said = facts.clock_warnings(datetime(year, 5, 1, tzinfo=UTC))
    assert bool(said) == wrong
    assert not wrong or str(year) in said[0]
    if year == 1973:
        assert facts.state("cpu", datetime(year, 5, 1, tzinfo=UTC))["uptime_seconds"] is None


# 12: no home


def test_without_a_home_a_run_works(spec_file: Path, tmp_path: Path) -> None:
    line, environment = command(*asked(spec_file, tmp_path / "r", "latency"))
    bare = {
        name: value for name, value in environment.items() if name not in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME")
    }
    done = subprocess.run(line, env=bare, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


# 17: stale jobs


@pytest.mark.parametrize(
    "environ", [{"R": "0"}, {"R": "x", "S": "2"}, {"R": "2", "S": "2"}, {"R": "-1", "S": "2"}, {"R": "0", "S": "0"}]
)
def test_a_launchers_variables_that_do_not_fit_are_to_be_unset(environ: dict[str, str]) -> None:
    with pytest.raises(UserError, match="`unset R S`"):
        ranks.place_of(("R", "S"), environ)
    assert ranks.place_of(("R", "S"), {"R": "1", "S": "2"}) == [1, 2]


def test_a_launcher_that_is_missing_is_a_sentence(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object.__setattr__(PLATFORM, "launch", lambda *args: [Start(["/nowhere/mlx.launch"], {})])
    try:
        done = quick(spec_file, tmp_path / "r", "--nproc", 2, phases="training")
    finally:
        object.__setattr__(PLATFORM, "launch", launch)
    assert done.returncode == 1
    assert "mlx.launch cannot be started" in done.stderr
    assert "make setup-fake" in done.stderr


# Weights that are no numbers


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float, tiny_spec: Spec, tmp_path: Path) -> None:
    weights = params.initial(tiny_spec)
    weights["norm.weight"][3] = value
    params.save(weights, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"norm\.weight has values that are no numbers"):
        params.load(tiny_spec, tmp_path / "w.safetensors")


# Time limits


def test_after_its_deadline_a_window_ends_with_what_it_has(tiny_spec: Spec) -> None:
    now = [0.0]

    def step() -> None:
        now[0] += 1.0

    stepper = Stepper(step, lambda handle: None, tiny_spec.measuring, lambda: now[0], deadline=20.0)
    blocks, _ = stepper.warm_up(1e9)
    assert now[0] < 60
    now[0] = 30.0
    blocks = stepper.window(1000, 1000.0, 1.0, lambda *args, **figures: None)
    assert len(blocks) == 2


def test_a_phase_that_passes_its_limit_is_stopped_with_all_that_it_has_started(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_spec.run.plan.LIMIT_MARGIN_SECONDS", 1.0)
    out = tmp_path / "r"
    done = quick(spec_file, out, "--time-limit", 0.0001, phases="training,latency", FAKE_FAULT="hang:3")
    assert done.returncode == 1
    training, _ = only_result(out)["phases"]
    assert (training["status"], training["failure"]) == ("failed", "too_slow")
    assert "--time-limit" in training["reason"]
    assert "close other programs" in training["reason"]


def test_limits_are_a_multiple_of_the_estimate(tiny_spec: Spec) -> None:
    asked_for = Request(PLATFORM, Setting(tiny_spec, "quick", "cpu", "fake", "fp32"), (phases.LATENCY,), Path("r"))
    plan = Plan(asked_for)
    (planned,) = plan.processes
    assert plan.limit(planned) == 10 * plan.estimate(planned) + 300
    assert Plan(replace(asked_for, time_limit=0.0)).limit(planned) is None


def test_a_busy_machine_is_told_what_to_expect(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "foreign_share", lambda clock: lambda: 0.95)
    done = quick(spec_file, tmp_path, phases="latency")
    assert "this machine is busy: other processes take 95% of its processor" in done.stdout
    assert "Waiting, or closing other programs, helps" in done.stdout


def test_grandchildren_end_too(tmp_path: Path) -> None:
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    kill_family(process)
    process.communicate()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
