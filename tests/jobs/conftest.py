import pytest
from support.campaigns import drilled, local_pool, tiny_folder, write_campaign
from typer.testing import CliRunner

from jobs.cli import app

__all__ = ["drilled", "local_pool", "tiny_folder", "write_campaign"]


@pytest.fixture
def invoke(monkeypatch, local_pool):
    """Runs a command with workers in this process instead of Ray's."""
    monkeypatch.setattr("cluster.workers.pool.ray_pool",
                        lambda store, spec, address: local_pool(store, spec.count or 1)())
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def done(invoke, write_campaign, tmp_path):
    """A store in which the small campaign is done."""
    assert invoke("run", write_campaign(), "--out", tmp_path / "store").exit_code == 0
    return tmp_path / "store"
