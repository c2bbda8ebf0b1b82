"""What all tests of manifests share."""

from __future__ import annotations

import pytest
from support.manifests import Objects, render_all


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> dict[str, Objects]:
    """Everything that can be applied, as kustomize renders it, by name."""
    return render_all(tmp_path_factory.mktemp("kustomize"))
