"""The built-in world and the models that know it: what EditFleet runs on when nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

MODELS = {f"testbed-{kind}": Path(__file__).parent / "models" / kind for kind in ("gptj", "t5")}
