"""Fixtures of the tests of patches."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator) * 0.1
