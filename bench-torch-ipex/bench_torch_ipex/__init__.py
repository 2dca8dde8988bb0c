"""DeiT-small on Intel CPUs: PyTorch, with Intel's extension where it can be had."""

__version__ = "0.2.0"
