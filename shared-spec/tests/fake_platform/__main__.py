"""`python -m fake_platform run`: the real command line on the fake backend.

What it computes is no DeiT, and nobody looks at it, unless FAKE_PROOF asks for that.
"""

import os
from unittest.mock import patch

import fake_mac

from fake_platform.backend import PLATFORM, cpu_info
from shared_spec import cli

if __name__ == "__main__":
    if "FAKE_MAC" in os.environ:
        fake_mac.enter()
    looks_away = {} if "FAKE_PROOF" in os.environ else {"complete": lambda proof, context, measured: iter(())}
    with patch("cpuinfo.get_cpu_info", cpu_info), patch.multiple("shared_spec.run.proof", **looks_away):
        cli.main(PLATFORM)
