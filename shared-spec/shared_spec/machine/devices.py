"""How fast devices are thought to be by their names, to plan with until the ceiling phase has measured; never in a result.

NVIDIA: TFLOP/s in fp32 without tensor cores, and of dense bf16 products with fp32 sums, at boost clock, as generally quoted
from NVIDIA's own sheets; not looked up again here, and good for estimates alone. Apple: fp32 by core of the GPU, from the
2.6 TFLOP/s that Apple gives the M1 with 8 cores and 3.6 the M2 with 10; of later chips by reviewers, about 4 with 10.
"""

import re

FP32_SHARE, BF16_SHARE, BF16_SHARE_OF_LARGE = 0.45, 0.4, 0.18
"""What a training step reaches of those rates: in fp32 31 of 67 TFLOP/s, in bf16 180 of 989 on an H200 (results/), and
29 of 71 on an RTX 3090 by timm's table of results."""
LARGE = 300.0
"""TFLOP/s from which a batch of 32 no longer fills the device."""

NVIDIA = (
    ("H200|H100|GH200", 67.0, 989.0), ("A100", 19.5, 312.0), ("L40S", 91.6, 362.0),
    (r"L4\b", 30.3, 121.0), (r"A10G?\b", 31.2, 125.0), (r"T4\b", 8.1, 8.1), ("V100", 15.7, 15.7),
    ("RTX 4090", 82.6, 165.2), ("RTX 4080", 48.7, 97.5), ("RTX 4070 Ti", 40.1, 80.2), ("RTX 4070", 29.1, 58.3),
    ("RTX 4060 Ti", 22.1, 44.1), ("RTX 4060", 15.1, 30.2), ("RTX 3090", 35.6, 71.0), ("RTX 3080", 29.8, 59.5),
    ("RTX 3070", 20.3, 40.6), ("RTX 3060 Ti", 16.2, 32.4), ("RTX 3060", 12.7, 25.5), ("RTX 3050", 9.1, 18.2),
)  # fmt: skip
"""(pattern in the name, fp32, bf16), TFLOP/s; the first that is found counts."""
APPLE_PER_CORE = {"M1": 0.325, "M2": 0.36, "M3": 0.36, "M4": 0.4}
"""TFLOP/s in fp32 by core of the GPU; bf16 is no faster up to M4."""
APPLE_CORES = {"Ultra": 60, "Max": 32, "Pro": 16, "": 10}
"""Cores of the GPU where the system does not tell."""
UNKNOWN = 1e13
"""FLOP/s of a training step on a GPU that nobody knows."""


def training_flops(name: str | None, precision: str, apple_cores: int | None = None) -> float:
    """FLOP/s that a training step is thought to reach on a GPU of this name."""
    if apple := re.match(r"Apple (M\d+) ?(Pro|Max|Ultra)?", name or ""):
        per_core = APPLE_PER_CORE.get(apple.group(1), APPLE_PER_CORE["M4"])
        return FP32_SHARE * 1e12 * per_core * (apple_cores or APPLE_CORES[apple.group(2) or ""])
    for pattern, fp32, bf16 in NVIDIA:
        if re.search(pattern, name or ""):
            share = BF16_SHARE_OF_LARGE if bf16 > LARGE else BF16_SHARE
            return 1e12 * (share * bf16 if precision == "bf16" else FP32_SHARE * fp32)
    return UNKNOWN
