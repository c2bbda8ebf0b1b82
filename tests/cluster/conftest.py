from __future__ import annotations

import pytest
from support.campaigns import drilled, local_pool, tiny_folder, write_campaign

from cluster.campaign.file import load_campaign
from cluster.plan.planner import plan

__all__ = ["drilled", "local_pool", "tiny_folder", "write_campaign"]


@pytest.fixture
def make_plan(write_campaign):
    return lambda **changes: plan(load_campaign(write_campaign(**changes)))
