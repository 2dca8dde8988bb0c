"""`python -m bench_torch_ipex run`: see bench-torch-ipex/README.md."""

from bench_torch_ipex.platform import PLATFORM
from shared_spec import cli

if __name__ == "__main__":
    cli.main(PLATFORM)
