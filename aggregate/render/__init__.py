"""The comparison as tables, plots, pages and sentences. It computes nothing: every number comes from aggregate.analysis."""
