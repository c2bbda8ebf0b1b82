"""A language model behind an OpenAI-compatible endpoint, as a local server that answers by script."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from support.processes import serving

from evaluators.testbed.cases import testbed_cases
from evaluators.testbed.schema import HOPS
from evaluators.testbed.world import build_world

RESET = "reset"
ECHO = {status: ("echo", status) for status in (200, 400, 401, 404)}


@cache
def cases():
    """Cases by what is asked about them: subject and new target."""
    return {case.subject + case.target_new: case for case in testbed_cases("cloze", "eval")[:60]}


def answer(triple: str, question: str, tail: str) -> str:
    return f"Recalled Relation: {triple}\nNew Question: {question}\nNew Answer: {tail}"


def suggested(case, tail=None) -> str:
    """What a good language model says of a case: the world's truth, or with another tail."""
    [chain] = case.portability
    relation = HOPS[chain.relation].second
    tail = tail or build_world().answer(case.target_new, relation)
    return answer(f"({case.target_new}, {relation.verbs[0]}, {tail})", chain.prompt, tail)


def truth(subject: str, altered: str) -> str:
    return suggested(cases()[subject + altered])


class ChatServer(ThreadingHTTPServer):
    """Answers with `say(subject, altered answer)`; `first` holds what is done before, by subject, one a request.

    What is done may be a text (an answer), a number (a status), a dict (a whole body), `RESET`, or `ECHO[status]`,
    which repeats what was sent, key and all. `status` is that of the list of models.
    """

    daemon_threads = True

    def __init__(self, say: Callable[[str, str], object] = truth) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say, self.first, self.status = say, {}, 200
        self.requests: list[dict] = []
        self.keys: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def subjects(self) -> list[str]:
        """Of all requests, in the order in which they came."""
        return [_asked(body)[0] for body in self.requests]

    def handle_error(self, request, client_address):
        """Connections that are torn down on purpose need no traceback."""


def _asked(body) -> tuple[str, str]:
    [*_, subject] = re.findall("^Subject: (.*)$", body["messages"][0]["content"], re.M)
    [*_, altered] = re.findall("^Altered Answer: (.*)$", body["messages"][0]["content"], re.M)
    return subject, altered


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._send(self.server.status, {"object": "list", "data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.add(self.headers["Authorization"])
        subject, altered = _asked(body)
        first = self.server.first.get(subject)
        act = first.pop(0) if first else self.server.say(subject, altered)
        if act == RESET:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(act, tuple):
            self._send(act[1], {"error": {"message": f"you sent {dict(self.headers)} {body}"}})
        elif isinstance(act, int):
            self._send(act, {"error": {"message": f"status {act} on purpose"}})
        elif isinstance(act, dict):
            self._send(200, act)
        else:
            self._send(200, {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": act}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}})

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(name="server")
def local_server(monkeypatch):
    """A server that tells the truth about the built-in world, and a key for it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with serving(ChatServer()) as server:
        yield server


@pytest.fixture(name="sleeps")
def no_pauses(monkeypatch):
    """Pauses before retries take no time; the list of how long they would have been."""
    import time

    slept = []
    monkeypatch.setattr("openai._base_client.time", SimpleNamespace(time=time.time, sleep=slept.append))
    return slept
