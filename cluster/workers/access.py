"""Who may talk to a Ray: whoever can, runs code as the user that started it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

ANSWER = 3.0  # seconds to wait for one
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def own_token() -> Iterator[None]:
    """Has the Ray that is started here answer nobody without a token that this process makes up, and shares with none
    but those it starts. Where the environment says something of Ray's tokens, that stands."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    if before["RAY_AUTH_MODE"] in (None, "token") and not (before["RAY_AUTH_TOKEN"] or before["RAY_AUTH_TOKEN_PATH"]):
        # Ray would make one, too, and leave it in the home folder, where every later Ray would find it.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    _read_environment()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_environment()


def _read_environment() -> None:
    """Ray reads what it says of tokens only once."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def is_open(address: str) -> bool:
    """Whether the cluster whose control service (GCS) is at `host:port` answers those who have no token."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=ANSWER)
        except grpc.RpcError:
            return False
    return True
