"""The quart-trio application: operations in front, pages behind."""

from __future__ import annotations

from typing import Any

import msgspec
from quart import Response, redirect
from quart_trio import QuartTrio

from api.dispatch import Dispatcher
from api.docs import page
from api.http import HttpConnection
from api.openapi import document
from api.streams import Streams
from api.ws import WebSocketConnection


class App(QuartTrio):
    """quart with connection classes of ours: see http.py and ws.py."""

    asgi_http_class = HttpConnection
    asgi_websocket_class = WebSocketConnection

    def __init__(self, dispatcher: Dispatcher, streams: Streams) -> None:
        super().__init__("switchboard", static_folder=None, template_folder=None)
        self.dispatcher = dispatcher
        self.streams = streams
        self.openapi: dict[str, Any] = document(dispatcher.table)
        self.openapi_json = msgspec.json.encode(self.openapi)
        # What quart serves; everything else is an operation, or an error in a surface's shape.
        self.quart_paths = frozenset({"/", "/docs"})
        html = page(self.openapi)

        @self.get("/")
        async def index() -> Any:
            return redirect("/docs")

        @self.get("/docs")
        async def docs() -> Response:
            response = Response(html, content_type="text/html; charset=utf-8")
            response.headers["Content-Security-Policy"] = (
                "default-src 'none'; style-src 'unsafe-inline'"
            )
            return response
