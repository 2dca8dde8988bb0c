"""What is on disk of an unfinished run."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared_spec import files, places
from shared_spec.errors import UserError
from shared_spec.machine import facts, identity, provenance
from shared_spec.measure.clock import utc_now
from shared_spec.run import lock
from shared_spec.run.job import RESERVE, OutcomeFile
from shared_spec.run.plan import Planned
from shared_spec.run.request import Request

RESERVE_BYTES = 4 << 20
SALT = "salt"
RESTARTED = "taken up again after a restart, or on another machine of the same kind"
RESTART_SECONDS = 120.0
"""Two times of start-up of a system within so many seconds are the same one, read from a clock that was set."""


def check_machine(begun_on: dict[str, Any], machine: dict[str, Any], where: Path) -> None:
    """Raise UserError where an unfinished run, kept at `where`, was begun on another machine than this."""
    unread = " ".join(f"{reason} " for side in (begun_on, machine) for reason in side.get("unread") or [])
    for fact in facts.MACHINE:
        known = f"{fact}: " not in unread and not (fact.startswith("gpu_") and "gpu: " in unread)
        if known and begun_on.get(fact) != machine.get(fact):
            raise UserError(
                f"{where}: this run was begun on another machine ({fact}: {begun_on.get(fact)}, here "
                f"{machine.get(fact)}); go on there, or start over with --fresh, or choose another --out."
            )


class RunFolder:
    """What is on disk of an unfinished run.

    Attributes:
        machine: what tells this machine from others, salted for this results folder; known when it is locked.
    """

    machine = ""

    def __init__(self, request: Request, data_checksums: dict[str, str]) -> None:
        commit, _ = provenance.git_state()
        setting = request.setting
        identity = [
            request.platform.name, setting.engine, setting.device, setting.precision, setting.spec.to_dict(),
            setting.profile_name, [phase.name for phase in request.phases], setting.stop, setting.power_watts,
            request.largest_batch, request.memory_share, data_checksums, commit,
            *([request.batch_size] if request.scaling == "weak" else []), setting.cores, setting.threads,
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.path, self.device = (request.out / ".runs" / key).absolute(), setting.device
        # Outcomes are of one number of ranks; a checkpoint of strong scaling is of any.
        self.outcomes = self.path if setting.ranks == 1 else self.path / f"ranks-{setting.ranks}"

    @contextmanager
    def locked(self) -> Iterator[str | None]:
        """Hold the folder alone; yields what is to be said where this file system cannot promise it.

        Raises:
            UserError: another process has it, or it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            places.try_to_write(self.path)
        except OSError as error:
            where = self.path.parents[1]
            raise UserError(f"{self.path}: cannot be written to ({error.strerror}); {places.way_out(where)}") from error
        with lock.held(self.path) as warning:
            self._keep_reserve()
            self.machine = identity.salted(self._salt(), self.device)
            try:
                yield warning
            finally:
                self.give_up_reserve()

    def _salt(self) -> str:
        """What this results folder adds to the identity of machines; it is made at the first run."""
        path = self.path.parent / SALT
        files.write_new(path, os.urandom(16).hex())
        return str(files.read(path))

    def _keep_reserve(self) -> None:
        """Keep room for outcomes and the result, in case that others fill the disk meanwhile."""
        try:
            (self.path / RESERVE).write_bytes(bytes(RESERVE_BYTES))
        except OSError as error:
            self.give_up_reserve()
            where = self.path.parents[1]
            raise UserError(
                f"--out {where}: there is no room ({error.strerror}); make some, or choose another."
            ) from error

    def give_up_reserve(self) -> None:
        """Use the room that was kept."""
        with contextlib.suppress(OSError):
            (self.path / RESERVE).unlink()

    def outcome(self, planned: Planned, part: str = "") -> OutcomeFile:
        """File of the outcome of a phase, or of a named part of its work."""
        return OutcomeFile(self.outcomes / f"{planned.stem}{part}.json")

    def checkpoint(self, planned: Planned) -> Path:
        """File that a full training keeps itself in, whatever the number of ranks."""
        return self.path / f"{planned.phase.name}-{planned.repeat}.safetensors"

    def has_record(self) -> bool:
        """Whether there is an unfinished run."""
        return (self.path / "run.json").exists()

    def read_record(self) -> dict[str, Any]:
        """Who this run is, as `open_record` has left it.

        Raises:
            UserError: it cannot be read.
        """
        record: dict[str, Any] = files.read(self.path / "run.json")
        return record

    def open_record(self, device: str, fresh: bool) -> dict[str, Any]:
        """Who this run is and how often it was taken up; kept from its first start on.

        Raises:
            UserError: it was begun on another machine.
        """
        path, machine, booted = self.path / "run.json", facts.collect(device), facts.boot_time()
        if fresh:
            for stale in [*self.path.glob("*.json"), *self.outcomes.glob("*.json"), *self.path.glob("*.safetensors")]:
                stale.unlink(missing_ok=True)
        if path.exists():
            try:
                record: dict[str, Any] = files.read(path)
            except UserError as error:
                raise UserError(f"{error} It tells of an unfinished run: --fresh starts over.") from error
            check_machine(record["environment"], machine, path)
            record["resumed"] += 1
            if None not in (booted, record["booted"]) and abs(booted - record["booted"]) > RESTART_SECONDS:
                record["booted"] = booted
                record["warnings"].append(RESTARTED)
        else:
            now = utc_now()
            created, state = now.strftime("%Y-%m-%dT%H:%M:%SZ"), facts.state(device, now)
            record = {
                "run_id": os.urandom(8).hex(),
                "created": created,
                "resumed": 0,
                "booted": booted,
                "environment": machine,
                "state_before": state,
                "warnings": [*facts.warnings({**machine, **state}), *facts.clock_warnings(now)],
            }
        files.write(path, record)
        return record

    def clear(self) -> None:
        """Remove what this run has no more use for; unfinished runs with another number of ranks keep theirs."""
        others = [folder for folder in self.path.glob("ranks-*") if folder != self.outcomes]
        if self.outcomes != self.path:
            others += self.path.glob("[0-9]*.json")
            shutil.rmtree(self.outcomes, ignore_errors=True)
        if not others:
            # Errors say nothing: NFS and SMB keep a file that is open, as the lock is, until it is closed.
            shutil.rmtree(self.path, ignore_errors=True)
