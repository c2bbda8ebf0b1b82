"""Processes that run tasks."""
