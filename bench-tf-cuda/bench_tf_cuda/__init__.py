"""DeiT-small on NVIDIA GPUs: TensorFlow, compiled by XLA."""

__version__ = "0.1.0"
