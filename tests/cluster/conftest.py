from __future__ import annotations

import pytest
from campaigns import drilled, local_pool, tiny_folder, write_campaign

from cluster.campaign_file import load_campaign
from cluster.plan import plan

__all__ = ["drilled", "local_pool", "tiny_folder", "write_campaign"]


@pytest.fixture
def make_plan(write_campaign):
    return lambda **changes: plan(load_campaign(write_campaign(**changes)))
