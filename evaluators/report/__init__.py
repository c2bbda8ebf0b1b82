"""Rows summed up: means, intervals, comparisons, tables."""
