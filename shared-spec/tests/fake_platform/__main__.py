"""`python -m fake_platform run`: the real command line on the fake backend."""

import os
from unittest.mock import patch

import fake_mac

from fake_platform.backend import PLATFORM, cpu_info
from shared_spec import cli

if __name__ == "__main__":
    if "FAKE_MAC" in os.environ:
        fake_mac.enter()
    with patch("cpuinfo.get_cpu_info", cpu_info):
        cli.main(PLATFORM)
