"""What is on disk of an unfinished run: whose it is, and when it may be gone on with."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_platform.backend import PLATFORM, cpu_info

from shared_spec import files
from shared_spec.errors import UserError
from shared_spec.run import phases
from shared_spec.run.folder import RESTARTED, RunFolder
from shared_spec.run.job import Setting
from shared_spec.run.plan import Planned
from shared_spec.run.request import Request
from shared_spec.workload.spec import Spec

DATA = {"train": "0" * 32}
TRAINING = Planned(phases.TRAINING, 0)


@pytest.fixture(autouse=True)
def _quick_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpuinfo.get_cpu_info", cpu_info)


@pytest.fixture
def request_(tiny_spec: Spec, tmp_path: Path) -> Request:
    setting = Setting(tiny_spec, "quick", "cpu", "fake", "fp32")
    return Request(PLATFORM, setting, (phases.CEILING, phases.TRAINING), tmp_path)


def begun(folder: RunFolder, **changed: object) -> None:
    """Start the run, and let its record say something else than it does."""
    with folder.locked():
        record = folder.open_record("cpu", fresh=False)
    files.write(folder.path / "run.json", {**record, **changed})


def test_the_same_request_has_the_same_folder_and_another_has_another(request_: Request) -> None:
    def path(data: dict[str, str] = DATA, **changed: object) -> Path:
        names = {"precision", "engine", "stop", "power_watts", "profile_name", "threads", "cores"} & changed.keys()
        setting = replace(request_.setting, **{name: changed.pop(name) for name in names})  # type: ignore[arg-type]
        return RunFolder(replace(request_, setting=setting, **changed), data).path  # type: ignore[arg-type]

    others = [
        path({"train": "1" * 32}), path(precision="bf16"), path(engine="other"), path(stop="target"),
        path(power_watts="40"), path(profile_name="full"), path(phases=(phases.CEILING,)), path(largest_batch=8),
        path(memory_share=0.5), path(scaling="weak"), path(threads=1), path(cores="all"),
    ]  # fmt: skip
    assert path() == path(keep_weights=True) == path(fresh=True)
    assert len({path(), *others}) == 1 + len(others)


def test_outcomes_are_of_one_number_of_ranks_and_a_checkpoint_of_any(request_: Request) -> None:
    one, two = (RunFolder(replace(request_, setting=replace(request_.setting, ranks=ranks)), DATA) for ranks in (1, 2))
    assert one.path == two.path
    assert one.outcome(TRAINING) != two.outcome(TRAINING)
    assert one.checkpoint(TRAINING) == two.checkpoint(TRAINING)


def test_two_runs_of_the_same_kind_do_not_mix(request_: Request) -> None:
    with RunFolder(request_, DATA).locked():
        with pytest.raises(UserError, match="under way"), RunFolder(request_, DATA).locked():
            pass
        with RunFolder(request_, {}).locked():
            pass
    with RunFolder(request_, DATA).locked():
        pass


def test_a_run_is_taken_up_as_the_same_one(request_: Request) -> None:
    folder = RunFolder(request_, DATA)
    begun(folder)
    first = files.read(folder.path / "run.json")
    record = folder.open_record("cpu", fresh=False)
    assert record == {**first, "resumed": 1}
    assert files.read(folder.path / "run.json") == record


def test_a_run_begun_on_another_machine_is_not_taken_up(request_: Request) -> None:
    folder = RunFolder(request_, DATA)
    begun(folder)
    environment = files.read(folder.path / "run.json")["environment"]
    begun(folder, environment={**environment, "cpu_name": "Another CPU"})
    before = (folder.path / "run.json").read_bytes()
    with pytest.raises(UserError) as error:
        folder.open_record("cpu", fresh=False)
    for word in ("run.json", "Another CPU", "--fresh"):
        assert word in str(error.value)
    assert (folder.path / "run.json").read_bytes() == before
    assert folder.open_record("cpu", fresh=True)["resumed"] == 0


def test_a_restart_in_between_is_noted_once_each(request_: Request) -> None:
    folder = RunFolder(request_, DATA)
    begun(folder)
    booted = files.read(folder.path / "run.json")["booted"]
    files.write(folder.path / "run.json", {**files.read(folder.path / "run.json"), "booted": booted - 1000})
    noted = [folder.open_record("cpu", fresh=False)["warnings"].count(RESTARTED) for _ in range(2)]
    assert noted == [1, 1]
    assert files.read(folder.path / "run.json")["resumed"] == 2


def test_fresh_starts_over(request_: Request) -> None:
    folder = RunFolder(request_, DATA)
    begun(folder)
    first = files.read(folder.path / "run.json")["run_id"]
    for file in (folder.outcome(TRAINING).path, folder.outcome(TRAINING).failed, folder.checkpoint(TRAINING)):
        file.touch()
    record = folder.open_record("cpu", fresh=True)
    assert record["run_id"] != first
    assert record["resumed"] == 0
    assert {file.name for file in folder.path.iterdir()} == {"lock", "run.json"}


def test_a_finished_run_leaves_what_another_number_of_ranks_has_not_finished(request_: Request) -> None:
    two = RunFolder(replace(request_, setting=replace(request_.setting, ranks=2)), DATA)
    one = RunFolder(request_, DATA)
    for folder in (one, two):
        folder.outcomes.mkdir(parents=True)
        files.write(folder.outcome(TRAINING).path, {})
    two.clear()
    assert one.outcome(TRAINING).path.exists()
    assert not two.outcomes.exists()
    one.outcome(TRAINING).path.unlink()
    one.clear()
    assert not one.path.exists()
