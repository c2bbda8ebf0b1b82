"""What the options of `run` say of metrics, done: who is shown a campaign while it runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.exporter.server import Exporter, Publisher, serving
from cluster.workers.interrupts import interrupted_by
from editors.core.errors import InputError


@contextmanager
def exporting(port: int | None, bind: str, targets: Path | None, to_ray: bool) -> Iterator[Exporter | None]:
    """The exporter that was asked for, during the block; None where none was. Raises `InputError` where it cannot be.
    """
    if port is None and targets is not None:
        raise InputError("--metrics-sd tells where metrics are: give --metrics-port, too")
    with interrupted_by(signal.SIGTERM):  # before and after there are workers, too
        if port is not None:
            with serving(port, bind, targets, _others(to_ray)) as exporter:
                yield exporter
        else:
            yield Exporter(_others(to_ray)) if to_ray else None


def _others(to_ray: bool) -> tuple[Publisher, ...]:
    if not to_ray:
        return ()
    from cluster.workers.gauges import RayGauges  # loads Ray

    return (RayGauges(),)
