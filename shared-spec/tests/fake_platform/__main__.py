"""`python -m fake_platform run`: the real command line on the fake backend."""

from fake_platform.backend import PLATFORM
from shared_spec import cli

if __name__ == "__main__":
    cli.main(PLATFORM)
