"""`python -m bench_tf_cuda run`: see bench-tf-cuda/README.md."""

from bench_tf_cuda.platform import PLATFORM
from shared_spec import cli

if __name__ == "__main__":
    cli.main(PLATFORM)
