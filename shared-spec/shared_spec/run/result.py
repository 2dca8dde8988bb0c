"""Putting a result together from what the phases have left."""

from typing import Any

from shared_spec.data.dataset import Identity
from shared_spec.machine import facts, provenance, watch
from shared_spec.measure.clock import utc_now
from shared_spec.results import format, privacy
from shared_spec.results.format import Result
from shared_spec.run import plug
from shared_spec.run.folder import RunFolder
from shared_spec.run.plan import Plan
from shared_spec.run.request import Request
from shared_spec.workload import params


def build(
    request: Request, plan: Plan, folder: RunFolder, record: dict[str, Any], data: Identity, warnings: list[str],
    wide_intervals: dict[str, float],
) -> Result:  # fmt: skip
    """The result of what has ended of a run (results.schema.json).

    Args:
        record: what `RunFolder.open_record` returned.
        warnings: what a reader must know, beside what is derived here from the conditions of the phases.
        wide_intervals: as `Plan.wide_intervals` returns them.
    """
    setting, spec = request.setting, request.setting.spec
    ended = [planned for planned in plan.processes if folder.outcome(planned).status]
    outcomes = {planned.title: folder.outcome(planned).read() for planned in ended}
    outcomes, unread = plug.at_the_end(outcomes, setting.power_watts)
    missing = [
        {"phase": planned.phase.name, "repeat": planned.repeat, "seed": planned.seed(spec)}
        for planned in plan.processes
        if planned not in ended
    ]
    disturbances = watch.warnings({title: outcome["conditions"] for title, outcome in outcomes.items()})
    software = provenance.software()
    if software["git_clean"] is False:
        warnings = [*warnings, "measured from a checkout with uncommitted changes"]
    content = spec.to_dict()
    return format.parse(
        {
            "schema_version": format.SCHEMA_VERSION,
            "run_id": record["run_id"],
            "created": record["created"],
            "platform": request.platform.name,
            "engine": setting.engine,
            "device": setting.device,
            "precision": setting.precision,
            "parallel": _parallel(request, list(outcomes.values())),
            "cpu_threads": _cpu_threads(request),
            "profile": {"name": setting.profile_name, "content": setting.profile.to_dict()},
            "spec": {
                "name": spec.name,
                "fingerprint": spec.fingerprint,
                "standard": spec.is_standard,
                "content": content,
            },
            "data": {"source": data.source, "checksums": data.checksums},
            "initial_params": {
                "seed": spec.init.seed,
                "fingerprint": params.fingerprint(params.initial(spec)),
                "count": params.count(spec),
            },
            "software": software,
            "environment": privacy.scrub(record["environment"]),
            "state_before": privacy.scrub(record["state_before"]),
            "state_after": privacy.scrub(facts.state(setting.device, utc_now())),
            "resumed": record["resumed"],
            "missing": missing,
            "wide_intervals": wide_intervals,
            "warnings": privacy.scrub([*warnings, *unread, *disturbances, *_moves(outcomes)]),
            "headline_memory": request.platform.headline_memory,
            "phases": list(outcomes.values()),
        }
    )


def _moves(outcomes: dict[str, dict[str, Any]]) -> list[str]:
    """Which phases ran on another machine than the first one did, or on several, a sentence each."""
    machines = {title: list(dict.fromkeys(one["machine"] for one in o["ran"] or ())) for title, o in outcomes.items()}
    seen = dict.fromkeys(machine for each in machines.values() for machine in each)
    names = {machine: f"machine {i}" for i, machine in enumerate(seen, 1)}
    if len(names) < 2:
        return []
    return [
        f"{title} ran on {' and then '.join(names[machine] for machine in each)} of {len(names)}"
        for title, each in machines.items()
        if each
    ]


def _cpu_threads(request: Request) -> dict[str, Any] | None:
    setting = request.setting
    if setting.device != "cpu":
        return None
    return {
        "cores": setting.cores,
        "asked": setting.threads,
        "count": setting.compute_threads(request.platform.world()).count,
    }


def _parallel(request: Request, outcomes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What connected the ranks, as the first phase that they shared says; None for one process."""
    if request.setting.ranks == 1:
        return None
    described = [outcome["backend"]["details"] for outcome in outcomes if outcome["backend"]]
    shared: dict[str, Any] = next((details for details in described if "ranks" in details), {})
    return {
        "world_size": request.setting.ranks,
        "scaling": request.scaling,
        **{key: shared.get(f"ranks_{key}") for key in ("engine", "transport", "hosts")},
    }
