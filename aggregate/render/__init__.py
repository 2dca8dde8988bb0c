"""The comparison as tables, plots, pages and sentences. It computes nothing: every number comes from aggregate.analysis."""

from aggregate.render import matplotlib_alone as matplotlib_alone  # before any module here imports matplotlib itself
