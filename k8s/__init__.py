"""Manifests, dashboards and alerts for running campaigns on Kubernetes, and without it."""
