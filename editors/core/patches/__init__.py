"""Edits as values, and the ways they act on a model."""
