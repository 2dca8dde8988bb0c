"""DeiT-small on NVIDIA GPUs: TensorFlow, compiled by XLA."""

__version__ = "0.2.0"
