"""What the flows share: a client of the fleet that hears /ws, ears for a recording, odd scripts."""

from __future__ import annotations

import math
import struct
import subprocess
import wave
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec
import psutil
import trio
from trio_websocket import ConnectionClosed

from tests.appliance import Appliance, running

Json = dict[str, Any]

# Short, so that a death is noticed and mended within a test.
WATCH = {"every": 0.5, "timeout": 0.5, "misses": 2}
# Seconds that an event may take to come, at most.
PATIENCE = 20.0
QUICK = {"backoff_first": 0.1, "backoff_cap": 0.5}


class Fleet:
    """One appliance's gateways, as a proxy and a monitor see them."""

    def __init__(self, appliance: Appliance) -> None:
        self.appliance = appliance
        self.events: list[Json] = []
        self._more = trio.Event()

    async def __aenter__(self) -> Self:
        self.client = self.appliance.client(timeout=70.0)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        await self._nursery.start(self._listen)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await self.client.aclose()

    async def _listen(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with self.appliance.ws("since=0") as ws:
                task_status.started()
                while True:
                    frame = msgspec.json.decode(await ws.get_message(), type=dict)
                    if "seq" in frame:
                        self.events.append(frame)
                        self._more.set()
                        self._more = trio.Event()
        except (ConnectionClosed, OSError):
            return

    # -- what a monitor sees ----------------------------------------------------

    def of(self, gw_id: str) -> list[Json]:
        """All events of a gateway so far."""
        return [e for e in self.events if e["subject"] == f"gateway/{gw_id}"]

    def types(self, gw_id: str) -> list[str]:
        """Their types, without the leading `gateway.`."""
        return [e["type"].removeprefix("gateway.") for e in self.of(gw_id)]

    async def event(self, gw_id: str, type: str, after: int = 0, **data: Any) -> Json:
        """The first such event after a number, when it has come."""
        return await self.until(
            lambda e: (
                e["subject"] == f"gateway/{gw_id}"
                and e["type"] == f"gateway.{type}"
                and all(e["data"].get(k) == v for k, v in data.items())
            ),
            after,
            f"gateway.{type} of {gw_id}",
        )

    async def until(self, wanted: Callable[[Json], bool], after: int, what: str) -> Json:
        looked_at = 0
        with trio.move_on_after(PATIENCE):
            while True:
                # Each event is looked at once: there may be many thousands.
                new, looked_at = self.events[looked_at:], len(self.events)
                for event in new:
                    if event["seq"] > after and wanted(event):
                        return event
                await self._more.wait()
        seen = [(e["type"], e["subject"], e["data"]) for e in self.events]
        raise AssertionError(f"no {what} after {after}; seen: {seen}")

    @property
    def head(self) -> int:
        """The number of the newest event seen."""
        return int(self.events[-1]["seq"]) if self.events else 0

    # -- what a proxy does --------------------------------------------------------

    async def start(
        self, gw_id: str, main_app: str = "recording", key: str | None = None, **more: Any
    ) -> httpx.Response:
        body = {"gw_id": gw_id, "room": "test-room", "main_app": main_app, **more}
        headers = {"Idempotency-Key": key} if key else {}
        return await self.client.post("/gateway/start", json=body, headers=headers)

    async def up(self, gw_id: str, main_app: str = "recording", **more: Any) -> Json:
        """Start it, see that it is up, and return its status."""
        answer = await self.start(gw_id, main_app, **more)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {
            "status": "success",
            "data": {"processing_state": "working", "gw_id": gw_id},
        }
        return await self.status(gw_id)

    async def stop(self, gw_id: str, **more: Any) -> httpx.Response:
        return await self.client.post("/gateway/stop", json={"gw_id": gw_id, **more})

    async def down(self, gw_id: str, **more: Any) -> None:
        answer = await self.stop(gw_id, **more)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"] == {"processing_state": "stopped"}

    async def status(self, gw_id: str) -> Json:
        answer = await self.client.get("/gateway/status", params={"gw_id": gw_id})
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()["data"]
        return found

    async def is_(self, gw_id: str, **wanted: Any) -> Json:
        """Its status, once it says so. For what no event tells of."""
        status: Json = {}
        with trio.move_on_after(PATIENCE):
            while True:
                status = await self.status(gw_id)
                if all(status[k] == v for k, v in wanted.items()):
                    return status
                await trio.sleep(0.05)
        raise AssertionError(f"{gw_id} is not {wanted}: {status}")

    async def send(self, gw_id: str, payload: Json) -> httpx.Response:
        return await self.client.post("/gateway/command", params={"gw_id": gw_id}, json=payload)

    async def command(self, gw_id: str, command: str, param: str | None = None) -> Json:
        """Have it carried out, and what the gateway answered."""
        payload = {"command": command} if param is None else {"command": command, "param1": param}
        answer = await self.send(gw_id, payload)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"]["ack"] is True
        received: Json = answer.json()["data"]["received"]
        return received

    def recordings(self, gw_id: str) -> list[Path]:
        """Its finished recordings, oldest first."""
        return sorted((self.appliance.folder / "recordings" / gw_id).glob("*/call-*.wav"))


@asynccontextmanager
async def fleet(
    tmp_path: Path, config: Mapping[str, Any] | None = None, *, within: float = 100.0
) -> AsyncIterator[Fleet]:
    """An appliance that runs, and a client of its fleet. `within`: seconds for the whole test."""
    with trio.fail_after(within):
        async with running(tmp_path, config) as appliance, Fleet(appliance) as it:
            yield it


def profiles(**named: Json) -> Json:
    """A configuration with profiles laid over the packaged ones."""
    return {"gateways": {"profiles": named}}


# -- processes ------------------------------------------------------------------------


def processes_of(appliance: Appliance, name: str = "") -> list[psutil.Process]:
    """All that run for its gateways, of any boot: what names its state folder, or works in it."""
    folder = str(appliance.folder)
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd()]
            status = process.status()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        ours = any(folder in word for word in words) and name in words[0]
        if ours and status != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


async def none_left(appliance: Appliance, name: str = "") -> None:
    """Wait until nothing of it runs any more."""
    left = processes_of(appliance, name)
    with trio.move_on_after(15):
        while left := processes_of(appliance, name):
            await trio.sleep(0.1)
    assert left == []


# -- ears -----------------------------------------------------------------------------


def samples(path: Path, rate: int = 8000) -> list[int]:
    """The sound of any file, decoded by ffmpeg to mono."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path)]
    command += ["-f", "s16le", "-ac", "1", "-ar", str(rate), "pipe:1"]
    raw = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    return list(struct.unpack(f"<{len(raw) // 2}h", raw[: len(raw) // 2 * 2]))


def dominant(path: Path, rate: int = 8000) -> int:
    """The loudest frequency in the middle second of a file, to 20 Hz."""
    found = samples(path, rate)
    middle = found[max(len(found) // 2 - rate // 2, 0) :][:rate]
    assert middle, f"no sound in {path}"
    return max(range(100, 2000, 20), key=lambda hertz: _power(middle, hertz, rate))


def _power(found: list[int], hertz: int, rate: int) -> float:
    """Goertzel's: the power of one frequency."""
    factor = 2 * math.cos(2 * math.pi * hertz / rate)
    before = last = 0.0
    for sample in found:
        before, last = last, sample + factor * last - before
    return before * before + last * last - factor * before * last


def length(path: Path) -> float:
    """Seconds of a WAV file, by its header: what a player shows."""
    with wave.open(str(path)) as sound:
        return float(sound.getnframes() / sound.getframerate())


def speech(path: Path, text: str) -> Path:
    """Speech that the recogniser knows, as 48 kHz stereo, with silence around it."""
    raw = path.with_suffix(".raw.wav")
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(raw)], check=True, timeout=30)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(raw)]
    command += ["-af", "adelay=500:all=1,apad=pad_dur=1", "-ar", "48000", "-ac", "2", str(path)]
    subprocess.run(command, check=True, timeout=30)
    return path


def script(path: Path, text: str) -> Path:
    """An executable file."""
    path.write_text(text)
    path.chmod(0o755)
    return path
