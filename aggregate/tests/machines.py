"""Invented results of machines that people own, for tests only: every one says that it is made up."""

from typing import Any

from aggregate.tests.factory import FULL_PHASES, make_result

MADE_UP = "made up for a test: nobody measured this"
METERS = {
    "mlx": ("apple-soc", "the chip: CPU, GPU, neural engine and memory", 25.0),
    "tf-cuda": ("nvml-counter", "gpu 0, the whole board", 170.0),
    "torch-ipex": ("rapl-package", "package 0, without memory", 160.0),
}
"""Source, scope and watts of each platform's meter."""
DEVICES = {
    "mlx": [f"Apple M{n}{kind}" for n in (2, 3, 4, 5) for kind in ("", " Pro", " Max", " Ultra")],
    "tf-cuda": [f"NVIDIA GeForce RTX {n}{kind}" for n in (3060, 3070, 3080, 4060, 4070, 4080, 4090, 5070, 5080)
                for kind in ("", " Ti")],
    "torch-ipex": [f"Intel(R) Core(TM) {name}" for name in (
        "i5-12400", "i5-13600K", "i7-12700K", "i7-13700K", "i7-14700K", "i9-13900K", "i9-14900K", "Ultra 5 245K",
        "Ultra 7 155H", "Ultra 7 265K", "Ultra 9 185H", "Ultra 9 285K")],
}  # fmt: skip


def machine(platform: str, device: str, speed: float, **more: Any) -> dict[str, Any]:
    """A full bf16 result of a device, with the meter that such a machine has."""
    kind = {"mlx": "gpu", "tf-cuda": "cuda", "torch-ipex": "cpu"}[platform]
    wanted: dict[str, Any] = {"precision": "bf16", "phases": FULL_PHASES, "repeats": 5} | more
    result = make_result(
        platform, device_name=device, device_kind=kind, speed=speed, warnings=[MADE_UP], **wanted
    )  # fmt: skip
    source, scope, watts = METERS[platform]
    share = watts / 150  # of the watts that an invented training takes
    for outcome in result["phases"]:
        measured = outcome["measurements"]
        for name in ("energy", "idle", "idle_before"):
            if name in measured:
                measured[name] |= {"source": source, "scope": scope, "joules": share * measured[name]["joules"]}
        for row in measured.get("evaluations", []):
            row["joules"] *= share
    return result


def three() -> list[dict[str, Any]]:
    """The three machines that the benchmark is for."""
    return [
        machine("mlx", "Apple M4", 62.0, cores=10),
        machine("tf-cuda", "NVIDIA GeForce RTX 4070", 790.0, seeds=3),
        machine("torch-ipex", "Intel(R) Core(TM) i7-14700K", 21.0, cores=20),
    ]


def fifty() -> list[dict[str, Any]]:
    """As many as a gallery has: all three platforms, quick and full, two precisions."""
    made = []
    for platform, slowest in (("mlx", 30.0), ("tf-cuda", 300.0), ("torch-ipex", 9.0)):
        for i, device in enumerate(DEVICES[platform]):
            speed = slowest * (1 + i / 2)
            if i % 3:
                quick: dict[str, Any] = {"phases": ("conformance", "training", "latency", "inference"), "repeats": 1}
                made.append(machine(platform, device, speed, **quick))
            else:
                made.append(machine(platform, device, speed, repeats=2))
    fp32: dict[str, Any] = {"phases": ("conformance", "training", "latency"), "repeats": 1, "precision": "fp32"}
    return [*made, *(machine("tf-cuda", device, 100.0, **fp32) for device in DEVICES["tf-cuda"][:4])]
