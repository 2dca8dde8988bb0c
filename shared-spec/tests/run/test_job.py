"""What a phase process is handed, and the outcome that it leaves."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from shared_spec.run.job import Failure, Job, OutcomeFile, Setting
from shared_spec.workload.spec import Spec


@pytest.fixture
def job(tiny_spec: Spec, tmp_path: Path) -> Job:
    setting = Setting(tiny_spec, "quick", "cpu", "fake", "fp32", ranks=2)
    outcome = OutcomeFile(tmp_path / "00-training-0.json")
    return Job(
        "training", 0, 7, setting, 4, None, {"A": "/home/ada/lib.so"}, outcome, tmp_path / "c.safetensors", "ab" * 8
    )


def test_a_job_arrives_as_it_was_sent(job: Job, tmp_path: Path) -> None:
    for sent in (job, replace(job, data=tmp_path, started=1.5)):
        sent.write()
        assert Job.read(sent.file) == sent


def test_the_name_of_an_outcome_tells_how_the_phase_ended(job: Job) -> None:
    assert job.outcome.status is None
    job.keep(Failure("fault", "ValueError: x").part(), 1.0)
    assert job.outcome.status == "failed"
    assert job.outcome.read()["reason"] == "ValueError: x"
    job.keep({"status": "ok", "failure": None, "reason": None, "measurements": {"loss": math.nan}}, 2.0)
    assert job.outcome.status == "ok"
    assert not job.outcome.failed.exists()
    assert job.outcome.read()["measurements"] == {"loss": None}  # JSON has no NaN
    assert job.outcome.read()["worker_env"] == {"A": "lib.so"}  # and nobody's folders


def test_a_new_try_finds_nothing_of_an_earlier_one(job: Job) -> None:
    job.keep(Failure("ranks", "apart").part(), 1.0)
    job.rank_report(1).touch()
    job.forget()
    assert not list(job.outcome.path.parent.iterdir())


def test_reasons_name_no_folder_and_have_an_end() -> None:
    part = Failure("fault", "ValueError in /home/ada/x.py " + "x" * 5000).part()
    assert "ada" not in part["reason"]
    assert len(part["reason"]) == 4000
