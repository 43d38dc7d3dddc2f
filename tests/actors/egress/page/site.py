"""A web site on this machine for tests: pages that are given to it, and answers that are faults.

What it was asked is in `asked`. Whoever connects to it without a word is counted too.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def get_request(self) -> Any:
        connection = super().get_request()
        self.site.connections += 1
        return connection

    def handle_error(self, *_: object) -> None:
        """A browser that is killed breaks its connections."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site = self.server.site
        path, _, query = self.path.partition("?")
        site.asked.append(path)
        match path.split("/")[1:]:
            case ["page", number]:
                self._answer(200, site.pages[int(number)])
            case ["status", status]:
                self._answer(int(status), "<h1>sorry</h1>")
            case ["redirect"]:
                self._answer(302, "", {"Location": query})
            case ["download"]:
                self._answer(200, "PK", {"Content-Type": "application/zip"})
            case ["auth"]:
                self._answer(401, "", {"WWW-Authenticate": 'Basic realm="r"'})
            case ["go"]:
                site.go.wait()
                self._answer(200, "")
            case ["hang"]:
                site.closing.wait()
            case ["half"]:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(b"<body style='background:#0f0'>" + b" " * 4096)
                self.wfile.flush()
                site.closing.wait()
            case ["ws"]:
                self._open_websocket()
            case _:
                self._answer(200, "")

    def _answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _open_websocket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + _WEBSOCKET
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.server.site.closing.wait()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Site:
    """Serves from its making to `close`."""

    def __init__(self) -> None:
        self.pages: dict[int, str] = {}
        self.asked: list[str] = []
        self.connections = 0
        self.closing = threading.Event()
        # Holds the answers to /go.
        self.go = threading.Event()
        self._numbers = itertools.count()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def page(self, html: str) -> str:
        """Serve this; its address."""
        number = next(self._numbers)
        self.pages[number] = f"<!doctype html><link rel=icon href=data:,>{html}"
        return self.url(f"/page/{number}")

    def script(self, script: str, background: str = "#fff") -> str:
        """A page of one colour that runs a script once it is loaded."""
        return self.page(
            f"<body style='margin:0;background:{background}'>"
            f"<script>onload = async () => {{ {script} }}</script>"
        )

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
