"""The data frame of all figures: what the CSV file holds and `aggregate.load` gives."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from aggregate.analysis.merging import Run, merged
from aggregate.analysis.registry import METRIC

COLUMNS = {
    "run": "letter in tables and plots of what was measured, once or several times",
    "runs": "result files behind it",
    "file": "their names",
    "file_sha256": "SHA-256 of their bytes, unpacked",
    "run_id": "identities of the runs",
    "created": "UTC time of the start of the first",
    "platform": "which of the benchmark's platforms",
    "engine": "engine of the platform that ran",
    "framework": "framework and version",
    "device_kind": "cpu, gpu ...",
    "device_name": "as the framework names it",
    "cores": "physical cores, where the device is a CPU",
    "world_size": "processes that trained together, one a device; 1 where nothing was shared",
    "scaling": "strong: the workload's batch shared; weak: that batch for each process; empty for one process",
    "precision": "fp32 or bf16, as asked for; tables never set one against the other",
    "effective_precision": "as read back from the framework",
    "profile": "how much was measured: quick or full (several runs can differ in it)",
    "data": "cifar-100 or synthetic",
    "conformance": "passed, failed or not checked",
    "spec_name": "name of the workload",
    "spec_fingerprint": "SHA-256 of the workload",
    "training_fingerprint": "the same without how often it is evaluated; figures of different ones do not compare",
    "spec_standard": "whether it is the workload of this clone's spec.json",
    "git_commit": "commits that measured; null where unknown",
    "git_clean": "whether all those checkouts were free of changes; null where unknown",
    "phase": "phase the figure comes from",
    "metric": "key of aggregate.analysis.registry.METRICS",
    "unit": "unit of value, low and high",
    "basis": "what the value is of, where that differs: a full training or a steady window, which meter; values of "
    "different bases do not compare",
    "batch_size": "batch that the figure holds for, where that is not the workload's",
    "value": "median over the repeats of all files, or their sum where things are counted; empty where not measured",
    "low": "lowest repeat",
    "high": "highest repeat",
    "repeats": "repeats that gave a value",
    "n": "steps, samples or checks behind the value, all repeats together",
    "notes": "what to know beside the number",
    "reason": "why there is no value",
    "baseline": "letter of the run that this one is compared with",
    "ratio": "how many times as fast as that (above 1 is faster); geometric means of the processes",
    "ratio_low": "lower end of its 95 % interval",
    "ratio_high": "upper end of its 95 % interval",
    "ratio_p": "probability of a ratio so far from 1 by chance, corrected for the number of verdicts of the table (Holm)",
    "ratio_method": "how the interval was found",
    "verdict": "faster, slower or too close to call",
}
"""The columns of `summary`, in order."""


def summary(members: Sequence[Run], ratios: Mapping[tuple[str, str], Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """One row per run, metric and batch size, the repeats merged; the columns are those of COLUMNS.

    Args:
        members: the runs.
        ratios: the columns from "baseline" on, by run letter and metric.
    """
    rows = []
    for run in members:
        for (key, batch_size), repeats in run.figures.items():
            of_metric = {"phase": METRIC[key].phase, "metric": key, "batch_size": batch_size}
            compared = (ratios or {}).get((run.letter, key), {}) if batch_size is None else {}
            rows.append({**run.identity, **of_metric, **merged(repeats), **compared})
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"cores": "Int64", "batch_size": "Int64"})
