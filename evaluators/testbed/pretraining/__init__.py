"""Trains the built-in models."""
