"""DeiT-small in MLX: Apple Silicon through Metal, NVIDIA GPUs through CUDA, and Linux CPUs."""

__version__ = "0.2.0"
