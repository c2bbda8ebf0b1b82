"""Alerts: as the Prometheus operator takes them, and the plain rules that Prometheus reads itself."""
