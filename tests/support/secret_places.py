"""A web server that wants a password or a signature for what it has, and where a secret came out."""

from __future__ import annotations

import base64
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.processes import serving

USER, PASSWORD, SIGNATURE, TOKEN = "Us3rMarker", "Pa55/word+Marker", "S1gnatureMarker%2B", "T0kenMarker"
MARKERS = [USER, PASSWORD, "Pa55", "word+Marker", "word%2BMarker", "S1gnatureMarker", TOKEN]
QUERY = f"X-Amz-Signature={SIGNATURE}&token={TOKEN}"


class SecretServer(ThreadingHTTPServer):
    """Has `files`, by path, for those who know the password and the signature; others are told what they sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}

    def url(self, path: str, host: str = "") -> str:
        """Where a file is, with all that is needed to read it."""
        password = PASSWORD.replace("/", "%2F").replace("+", "%2B")
        return f"http://{USER}:{password}@{host or f'127.0.0.1:{self.server_address[1]}'}/{path}?{QUERY}"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        address = urlsplit(self.path)
        known = (self.headers["Authorization"] == f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
                 and parse_qs(address.query) == {"X-Amz-Signature": ["S1gnatureMarker+"], "token": [TOKEN]})
        found = self.server.files.get(address.path.strip("/"))
        status = 403 if not known else 404 if found is None else 200
        body = found if status == 200 else f"{self.path} {self.headers}".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture(name="secret_server")
def local_secret_server():
    with serving(SecretServer()) as server:
        yield server


def leaks(markers, texts, *folders) -> list[str]:
    """Which markers are in these texts, or in the name or content of any file below these folders, and where."""
    places = {f"text {number}": text.encode(errors="surrogateescape") for number, text in enumerate(texts)}
    places |= {str(path): str(path).encode() + path.read_bytes() for folder in folders
               for path in Path(folder).rglob("*") if path.is_file()}
    assert places
    return [f"{marker} in {place}" for place, content in places.items() for marker in markers
            if marker.encode() in content]
