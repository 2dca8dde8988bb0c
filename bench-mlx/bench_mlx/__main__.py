"""`python -m bench_mlx run`: see bench-mlx/README.md."""

from bench_mlx.platform import PLATFORM
from shared_spec import cli

if __name__ == "__main__":
    cli.main(PLATFORM)
