"""`python -m fake_platform run`: the real command line on the fake backend."""

from unittest.mock import patch

from fake_platform.backend import PLATFORM, cpu_info
from shared_spec import cli

if __name__ == "__main__":
    with patch("cpuinfo.get_cpu_info", cpu_info):
        cli.main(PLATFORM)
