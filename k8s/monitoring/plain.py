"""The alerts without Kubernetes: `python -m k8s.monitoring.plain > editfleet.rules.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parent / "rules.yaml"


def groups() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["spec"]["groups"]
    return found


def plain() -> str:
    """What Prometheus takes as a file of rules."""
    return yaml.safe_dump({"groups": groups()}, sort_keys=False, width=120)


if __name__ == "__main__":
    print(plain(), end="")
