"""The control channel of a gateway: commands with answers, and events.

Two kinds: baresip's ctrl_tcp (netstrings of JSON over TCP), and lines of JSON over standard input
and output for scripts. Both correlate an answer with its command by a token of ours.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import trio

from actors.gateway.messages import Json
from actors.gateway.netstring import Decoder, FrameError, encode
from supervisor.errors import Rejected
from supervisor.log import logger

# A frame that has begun must be complete within this, in seconds.
FRAME_TIMEOUT = 5.0
COMMAND_TIMEOUT = 10.0
MAX_WAITING = 64

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_decode = msgspec.json.Decoder(dict).decode


class ChannelBroken(Exception):
    """The channel closed, stalled, or said something that is no answer; it is of no use now."""


class Control(Protocol):
    """What the actor needs of a channel."""

    async def command(self, name: str, params: str, timeout: float = COMMAND_TIMEOUT) -> Json:
        """Send and wait for the answer. Raises Rejected when there is none."""


class _Answers:
    """Commands that wait for their answers, by token. Bounded."""

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._waiting: dict[str, tuple[trio.Event, list[Json]]] = {}
        self.broken: str | None = None

    def open(self) -> tuple[str, trio.Event, list[Json]]:
        if self.broken is not None:
            raise Rejected("control_lost", f"the control channel is down: {self.broken}")
        if len(self._waiting) >= MAX_WAITING:
            raise Rejected("busy", "too many commands wait for this gateway")
        token = f"s{next(self._tokens)}"
        event = trio.Event()
        box: list[Json] = []
        self._waiting[token] = (event, box)
        return token, event, box

    def forget(self, token: str) -> None:
        self._waiting.pop(token, None)

    def answer(self, token: object, message: Json) -> None:
        entry = self._waiting.pop(token, None) if isinstance(token, str) else None
        if entry is None:
            logger.debug("control_answer_unasked", message=message)
            return
        event, box = entry
        box.append(message)
        event.set()

    def fail(self, reason: str) -> None:
        self.broken = reason
        waiting, self._waiting = self._waiting, {}
        for event, _box in waiting.values():
            event.set()

    async def wait(self, token: str, event: trio.Event, box: list[Json], timeout: float) -> Json:
        try:
            with trio.move_on_after(timeout):
                await event.wait()
        finally:
            self.forget(token)
        if box:
            return box[0]
        if self.broken is not None:
            raise Rejected("control_lost", f"the control channel broke: {self.broken}")
        raise Rejected("no_answer", f"the gateway did not answer within {timeout:g} s")


class CtrlTcp:
    """baresip's ctrl_tcp. `run` reads until it breaks; commands may overlap."""

    def __init__(
        self, stream: trio.SocketStream, on_event: Callable[[Json], Awaitable[None]]
    ) -> None:
        self._stream = stream
        self._on_event = on_event
        self._answers = _Answers()
        self._send_lock = trio.Lock()

    @property
    def open(self) -> bool:
        """Can it still be used?"""
        return self._answers.broken is None

    async def command(self, name: str, params: str, timeout: float = COMMAND_TIMEOUT) -> Json:
        """See Control. Answers `{"response", "ok", "data", "token"}`, data without colours."""
        token, event, box = self._answers.open()
        frame = encode(msgspec.json.encode({"command": name, "params": params, "token": token}))
        try:
            with trio.fail_after(timeout):
                async with self._send_lock:
                    await self._stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._answers.forget(token)
            raise Rejected("control_lost", "the control channel broke") from error
        except trio.TooSlowError:
            self._answers.forget(token)
            raise Rejected("no_answer", "the gateway reads no commands") from None
        answer = await self._answers.wait(token, event, box, timeout)
        data = answer.get("data")
        return {**answer, "data": _ANSI.sub("", data).strip()} if isinstance(data, str) else answer

    async def run(self) -> None:
        """Read answers and events. Always raises ChannelBroken in the end."""
        decoder = Decoder()
        deadline = float("inf")
        try:
            while True:
                with trio.fail_at(deadline):
                    data = await self._stream.receive_some(65536)
                if not data:
                    raise ChannelBroken("it closed")
                frames = decoder.feed(data)
                for frame in frames:
                    await self._take(frame)
                if not decoder.partial:
                    deadline = float("inf")
                elif frames or deadline == float("inf"):
                    # From its beginning: more of a frame gives it no more time.
                    deadline = trio.current_time() + FRAME_TIMEOUT
        except trio.TooSlowError:
            error = ChannelBroken("it stalled in the middle of a frame")
            self._answers.fail(str(error))
            raise error from None
        except (
            FrameError,
            msgspec.DecodeError,
            RecursionError,
            trio.BrokenResourceError,
        ) as cause:
            error = ChannelBroken(str(cause) or type(cause).__name__)
            self._answers.fail(str(error))
            raise error from cause
        except ChannelBroken as error:
            self._answers.fail(str(error))
            raise
        finally:
            if self._answers.broken is None:
                self._answers.fail("it was closed")
            await trio.aclose_forcefully(self._stream)

    async def _take(self, frame: bytes) -> None:
        # A caller's name may be in any encoding; it must not cost the channel.
        message = _decode(frame.decode("utf-8", "replace"))
        if message.get("response"):
            self._answers.answer(message.get("token"), message)
        elif message.get("event"):
            await self._on_event(message)


class Lines:
    """Lines of JSON: `{"id", …command}` to the script, `{"id", …answer}` back."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._answers = _Answers()

    async def request(self, payload: Json, timeout: float = COMMAND_TIMEOUT) -> Json:
        """Send a payload with an id and wait for the line that has the same id."""
        token, event, box = self._answers.open()
        try:
            with trio.fail_after(timeout):
                await self._send(msgspec.json.encode({**payload, "id": token}) + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._answers.forget(token)
            raise Rejected("control_lost", "the script's standard input is closed") from error
        except trio.TooSlowError:
            self._answers.forget(token)
            raise Rejected("no_answer", "the script reads no commands") from None
        answer = await self._answers.wait(token, event, box, timeout)
        return {k: v for k, v in answer.items() if k != "id"}

    def take(self, message: Json) -> None:
        """A line of the script that is a JSON object with an id."""
        self._answers.answer(message.get("id"), message)

    def close(self) -> None:
        """The script has ended."""
        self._answers.fail("the script ended")
