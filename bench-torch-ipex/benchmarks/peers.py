"""This package's step against timm's DeiT-small on the same CPU: eager and compiled, PyTorch 2.8 and the newest.

Run: make peers-ipex (it makes the two environments), or .venv/bin/python benchmarks/peers.py --help
"""

from bench_torch_ipex.platform import PLATFORM
from shared_spec.dev import peers

PEERS = peers.timm_peers(".venv-torch-newest", "-newest") | peers.timm_peers(".venv-torch-2.8", "-2.8")

if __name__ == "__main__":
    peers.main(PLATFORM, __file__, PEERS)
