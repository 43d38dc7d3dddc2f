"""One page in one browser: brings it up and answers for whoever would sit before it.

Everything it fetches is asked about at the browser's own target, so that frames, workers and
service workers of other origins are included. Dialogs are dismissed, windows closed, downloads and
permissions denied, passwords refused. Console and errors are told of the page itself and its
frames of the same site.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
import trio

from actors.egress.page import protocol as cdp
from actors.egress.page.devtools import DevTools, DevToolsLost, Params
from actors.egress.page.gate import Gate
from actors.egress.page.request import MAX_TEXT, PageRequest, cut, public, told
from actors.egress.page.script import BINDING, END, READY, SCRIPT, Said
from actors.egress.page.told import Told
from actors.egress.page.verdict import Verdict
from actors.egress.page.watch import watch_browser, watch_page
from supervisor.log import logger

WINDOW_TIMEOUT = 10.0
# How often what was left out is told.
FLUSH_EVERY = 1.0

# A window is no narrower, in pixels; a page that is must be told so.
MIN_WINDOW = 500

_WORDS = {
    "net::ERR_BLOCKED_BY_CLIENT": "the allow list does not have it",
    "net::ERR_UNSAFE_PORT": "the port is not one for web pages",
    "net::ERR_TOO_MANY_REDIRECTS": "it redirects in a circle",
    "net::ERR_EMPTY_RESPONSE": "it answered nothing",
    "net::ERR_CONNECTION_RESET": "it reset the connection",
}

T = TypeVar("T")


def _read(raw: msgspec.Raw, kind: type[T]) -> T:
    return msgspec.json.decode(raw, type=kind)


class Visit:
    """Made before the connection is there; `open` shows the page, `watch` looks after it."""

    def __init__(self, wanted: PageRequest, gate: Gate, tell: Told, verdict: Verdict) -> None:
        self._wanted = wanted
        self._gate = gate
        self._tell = tell
        self._verdict = verdict
        self._browser: DevTools
        self._main = ""
        self._session = ""
        self._shown = False
        self._parsed = False
        self._there = trio.Event()
        self._ready = trio.Event()
        self._handlers: dict[str, Callable[[msgspec.Raw], Awaitable[None]]] = {
            "Fetch.requestPaused": self._request_paused,
            "Fetch.authRequired": self._auth_required,
            "Runtime.consoleAPICalled": self._console_called,
            "Runtime.exceptionThrown": self._exception_thrown,
            "Runtime.bindingCalled": self._binding_called,
            "Log.entryAdded": self._entry_added,
            "Page.javascriptDialogOpening": self._dialog,
            "Page.windowOpen": self._window_open,
            "Page.frameNavigated": self._frame_navigated,
            "Page.domContentEventFired": self._dom_content,
            "Page.loadEventFired": self._loaded,
            "Target.targetCreated": self._target_created,
            "Target.targetDestroyed": self._target_destroyed,
            "Target.targetCrashed": self._target_crashed,
            "Browser.downloadWillBegin": self._download,
        }

    # -- bringing it up -----------------------------------------------------------

    async def open(self, browser: DevTools) -> None:
        """Return when it is ready. Raises CommandFailed, DevToolsLost."""
        self._browser = browser
        await self._attach()
        with trio.move_on_after(self._wanted.ready_timeout) as waiting:
            answer = await browser.command(
                "Page.navigate",
                cdp.Navigated,
                {"url": self._wanted.url},
                self._session,
                timeout=math.inf,
            )
            if answer.error_text:
                self._verdict.lost(self._failed(self._wanted.url, answer))
            await self._ready.wait()
        if waiting.cancelled_caught:
            self._not_ready_in_time()

    async def _attach(self) -> None:
        browser = self._browser
        await browser.command("Target.setDiscoverTargets", cdp.Nothing, {"discover": True})
        # It may listen before it has a window.
        with trio.move_on_after(WINDOW_TIMEOUT) as waiting:
            await self._there.wait()
        if waiting.cancelled_caught:
            await self._verdict.fail(f"Chromium had no window within {WINDOW_TIMEOUT:g} s")
        attached = await browser.command(
            "Target.attachToTarget", cdp.Attached, {"targetId": self._main, "flatten": True}
        )
        self._session = attached.session_id
        to_browser: list[tuple[str, dict[str, object]]] = [
            ("Fetch.enable", {"patterns": _PATTERNS, "handleAuthRequests": True}),
            ("Browser.setDownloadBehavior", {"behavior": "deny", "eventsEnabled": True}),
            # None granted is all denied.
            ("Browser.grantPermissions", {"permissions": []}),
        ]
        to_page: list[tuple[str, dict[str, object]]] = [
            ("Page.enable", {}),
            ("Runtime.enable", {}),
            ("Log.enable", {}),
            ("Page.setInterceptFileChooserDialog", {"enabled": True}),
            ("Runtime.addBinding", {"name": BINDING}),
            ("Page.addScriptToEvaluateOnNewDocument", {"source": SCRIPT}),
        ]
        if self._wanted.width < MIN_WINDOW:
            to_page.append(("Emulation.setDeviceMetricsOverride", _metrics(self._wanted)))
        for method, params in to_browser:
            await browser.command(method, cdp.Nothing, params)
        for method, params in to_page:
            await browser.command(method, cdp.Nothing, params, self._session)

    def _failed(self, url: str, answer: cdp.Navigated) -> str:
        if answer.is_download:
            return f"{public(url)} is a download, not a page"
        why = _WORDS.get(answer.error_text)
        if why is None and "SOCKS" in answer.error_text:
            why = self._gate.why(url)
        if why is None and answer.error_text == "net::ERR_ABORTED":
            why = "it gives no page"
        return f"{public(url)} cannot be shown: {why or answer.error_text}"

    def _not_ready_in_time(self) -> None:
        within = f"within {self._wanted.ready_timeout:g} s"
        if self._wanted.ready == "console":
            self._verdict.lost(f"the page did not write {READY} to its console {within}")
        elif not self._parsed:
            self._verdict.lost(f"the page was not loaded {within}")
        else:
            self._tell("slow", text=f"not everything of the page was loaded {within}")

    async def watch(self) -> None:
        """Find a browser or a page that hangs; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_browser, self._browser, self._verdict)
            nursery.start_soon(watch_page, self._browser, self._session, self._verdict)
            nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        while True:
            await trio.sleep(FLUSH_EVERY)
            self._tell.flush()

    async def _post(self, method: str, params: Params, session: str = "") -> None:
        """Send a command that may come too late."""
        with suppress(DevToolsLost):
            # Whoever reads the connection says so.
            await self._browser.post(method, params, session)

    # -- what happens to it ----------------------------------------------------------

    async def on_event(self, _session: str, method: str, params: msgspec.Raw) -> None:
        """An event of the connection."""
        handler = self._handlers.get(method)
        if handler is not None:
            await handler(params)

    async def _request_paused(self, raw: msgspec.Raw) -> None:
        paused = _read(raw, cdp.RequestPaused)
        main = paused.resource_type == "Document" and paused.frame_id == self._main
        url = paused.request.url
        if paused.response_status_code is not None or paused.response_error_reason is not None:
            if main:
                self._answered(url, paused.response_status_code or 0)
        elif not self._gate.admits(url):
            self._tell("blocked", url=public(url), type=paused.resource_type)
            # Aborted, the page that is shown stays; otherwise there would be one that tells of it.
            reason = "Aborted" if main and self._shown else "BlockedByClient"
            failed = {"requestId": paused.request_id, "errorReason": reason}
            await self._post("Fetch.failRequest", failed)
            return
        await self._post("Fetch.continueRequest", {"requestId": paused.request_id})

    def _answered(self, url: str, status: int) -> None:
        if status < 400:
            return
        if self._ready.is_set():
            self._tell("error", text=f"{public(url)} answered with status {status}")
        else:
            self._verdict.lost(f"{public(url)} answered with status {status}")

    async def _auth_required(self, raw: msgspec.Raw) -> None:
        number = _read(raw, cdp.AuthRequired).request_id
        response = {"requestId": number, "authChallengeResponse": {"response": "CancelAuth"}}
        await self._post("Fetch.continueWithAuth", response)

    async def _console_called(self, raw: msgspec.Raw) -> None:
        called = _read(raw, cdp.ConsoleCalled)
        text = " ".join(one.text()[: 2 * MAX_TEXT] for one in called.args)
        self._tell("console", level=called.type, text=told(text))

    async def _exception_thrown(self, raw: msgspec.Raw) -> None:
        details = _read(raw, cdp.ExceptionThrown).exception_details
        text = details.exception.text() if details.exception is not None else details.text
        self._tell("error", text=told(text), url=public(details.url))

    async def _binding_called(self, raw: msgspec.Raw) -> None:
        try:
            said = msgspec.json.decode(_read(raw, cdp.BindingCalled).payload, type=Said)
        except msgspec.DecodeError as error:
            # The page may call it too.
            logger.debug("page_binding", reason=str(error))
            return
        match said.type:
            case "signal":
                self._signal(said.message)
            case "close":
                self._verdict.over("the page closed its window")
            case "left_out":
                self._tell.left_out("console", said.count)
            case _:
                self._tell("dialog", type=cut(said.type), text=told(said.message))

    def _signal(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == END:
            self._verdict.over("the page said so" + (f": {told(rest)}" if rest else ""))
        elif self._wanted.ready == "console":
            self._ready.set()

    async def _entry_added(self, raw: msgspec.Raw) -> None:
        entry = _read(raw, cdp.EntryAdded).entry
        if entry.level == "error":
            self._tell("error", text=told(entry.text), url=public(entry.url))

    async def _dialog(self, raw: msgspec.Raw) -> None:
        dialog = _read(raw, cdp.Dialog)
        self._tell("dialog", type=dialog.type, text=told(dialog.message))
        # It wants to go elsewhere and asks whether it may: it may, if the allow list says so.
        accept = dialog.type == "beforeunload"
        await self._post("Page.handleJavaScriptDialog", {"accept": accept}, self._session)

    async def _window_open(self, raw: msgspec.Raw) -> None:
        self._tell("window", url=public(_read(raw, cdp.WindowOpen).url))

    async def _frame_navigated(self, raw: msgspec.Raw) -> None:
        frame = _read(raw, cdp.FrameNavigated).frame
        if frame.parent_id:
            return
        if frame.unreachable_url and self._ready.is_set():
            why = self._gate.why(frame.unreachable_url) or "it cannot be shown"
            self._verdict.lost(f"the page went to {public(frame.unreachable_url)}: {why}")
        self._shown = frame.url != "about:blank"
        self._parsed = False

    async def _dom_content(self, _raw: msgspec.Raw) -> None:
        self._parsed = self._shown

    async def _loaded(self, _raw: msgspec.Raw) -> None:
        if self._shown and self._wanted.ready == "load":
            self._ready.set()

    async def _target_created(self, raw: msgspec.Raw) -> None:
        info = _read(raw, cdp.TargetCreated).target_info
        if info.type == "page" and not self._main:
            self._main = info.target_id
            self._there.set()
        elif info.type == "page" and info.target_id != self._main:
            self._tell("window", url=public(info.url))
            await self._post("Target.closeTarget", {"targetId": info.target_id})

    async def _target_destroyed(self, raw: msgspec.Raw) -> None:
        if _read(raw, cdp.TargetDestroyed).target_id == self._main:
            self._verdict.over("the page closed its window")

    async def _target_crashed(self, raw: msgspec.Raw) -> None:
        crashed = _read(raw, cdp.TargetCrashed)
        if crashed.target_id == self._main:
            self._verdict.lost(f"the page crashed ({cut(crashed.status) or 'no reason given'})")
        else:
            self._tell("crash", url="", text=cut(crashed.status))

    async def _download(self, raw: msgspec.Raw) -> None:
        self._tell("download", url=public(_read(raw, cdp.DownloadBegins).url))


def _metrics(wanted: PageRequest) -> dict[str, object]:
    return {
        "width": wanted.width,
        "height": wanted.height,
        "deviceScaleFactor": 1,
        "mobile": False,
    }


_PATTERNS = [
    {"urlPattern": "*", "requestStage": "Request"},
    # For the status of the page itself.
    {"urlPattern": "*", "resourceType": "Document", "requestStage": "Response"},
]
