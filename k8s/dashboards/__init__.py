"""Dashboards as code; `build` writes the JSON beside it."""
