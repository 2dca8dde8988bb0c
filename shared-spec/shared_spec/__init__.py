"""What deit-bench measures and how; knows NumPy, knows no framework."""

__version__ = "0.2.0"
