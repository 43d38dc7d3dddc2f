"""The DevTools messages that are understood here, as far as they are read.

From https://chromedevtools.github.io/devtools-protocol/tot/; fields that are not named are skipped.
"""

from __future__ import annotations

import msgspec


class _Said(msgspec.Struct, rename="camel"):
    """Names are written in our way here."""


class Nothing(_Said):
    """An answer of which nothing is needed."""


class TargetInfo(_Said):
    """Something in the browser that can be attached to."""

    target_id: str
    type: str
    url: str = ""


class Attached(_Said):
    """Answer to Target.attachToTarget."""

    session_id: str


class Navigated(_Said):
    """Answer to Page.navigate: there when the document has begun to come, or failed."""

    error_text: str = ""
    is_download: bool = False


class Request(_Said):
    """What is about to be fetched."""

    url: str


class RequestPaused(_Said):
    """Fetch: before a request is sent; with a status or a reason, when its answer has come."""

    request_id: str
    request: Request
    frame_id: str = ""
    resource_type: str = ""
    response_status_code: int | None = None
    response_error_reason: str | None = None


class AuthRequired(_Said):
    """Fetch: somebody asks for a user and a password."""

    request_id: str


class RemoteObject(_Said):
    """A value of the page."""

    value: msgspec.Raw = msgspec.Raw(b"")
    description: str = ""

    def text(self) -> str:
        """As the console would show it."""
        raw = bytes(self.value)
        if not raw:
            return self.description or "undefined"
        return msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw.decode()


class ConsoleCalled(_Said):
    """Runtime: the page wrote to its console."""

    type: str
    args: list[RemoteObject]


class ExceptionDetails(_Said):
    """What nobody caught."""

    text: str = ""
    url: str = ""
    exception: RemoteObject | None = None


class ExceptionThrown(_Said):
    """Runtime: the page threw and nobody caught."""

    exception_details: ExceptionDetails


class BindingCalled(_Said):
    """Runtime: the page called our function, with a text."""

    payload: str


class LogEntry(_Said):
    """What the browser has to say of the page."""

    source: str
    level: str
    text: str
    url: str = ""


class EntryAdded(_Said):
    """Log: a new entry."""

    entry: LogEntry


class Dialog(_Said):
    """Page: alert, confirm, prompt or beforeunload."""

    type: str
    message: str = ""


class WindowOpen(_Said):
    """Page: a window is about to be opened."""

    url: str


class Frame(_Said):
    """A frame after a navigation; with an unreachable address it shows an error page."""

    id: str
    parent_id: str = ""
    url: str = ""
    unreachable_url: str = ""


class FrameNavigated(_Said):
    """Page: a frame has another document."""

    frame: Frame


class TargetCreated(_Said):
    """Target: there is another one."""

    target_info: TargetInfo


class TargetDestroyed(_Said):
    """Target: it is gone."""

    target_id: str


class TargetCrashed(_Said):
    """Target: its process ended."""

    target_id: str
    status: str = ""


class DownloadBegins(_Said):
    """Browser: a download, which is denied."""

    url: str
