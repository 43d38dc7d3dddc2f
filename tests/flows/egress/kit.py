"""What these flows share: a client that starts tasks, hears what becomes of them, and faults."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import trio

from tests.appliance import Appliance, laid_over, running
from tests.flows.kit import Fleet, Json, processes_of

APP = "/egress/v1/demo/tasks"
SMALL: Json = {
    "video": {"width": 320, "height": 180, "frameRate": 10, "bitrate": 300},
    "audio": {"sampleRate": 48000, "channels": 1, "bitrate": 64},
}
# Recordings that the machine of a test can do at once are a matter of the test.
NO_COST = {"cpu": 0.1, "memory_mb": 10, "disk_kb": 0}
QUICK: Json = {
    "egress": {
        "capacity": {"cpu": 64, "memory_mb": 64_000},
        "costs": {"record": NO_COST, "snapshot": NO_COST, "page": NO_COST},
        "limits": {"tasks": 64, "record": 64, "snapshot": 64, "page": 4},
        "disk_free_mb": 1,
        "look_every": 0.5,
        "progress_every": 0.5,
    }
}
PATIENCE = 40.0
OVER = ("egress.stopped", "egress.failed", "egress.timeout")


class Studio(Fleet):
    """One appliance's tasks, as a client of the contract and a monitor see them."""

    _count = 0

    @property
    def root(self) -> Path:
        """Where the folders of the tasks are."""
        return self.appliance.folder / "egress"

    def files(self, task: str) -> Path:
        """Where a task's files are."""
        return self.root / task / "files"

    # -- what a client does ---------------------------------------------------------

    async def ask(self, cmd: str, payload: Json, request_id: str = "") -> httpx.Response:
        """A start, as it is."""
        Studio._count += 1
        body = {"request_id": request_id or f"r{Studio._count}", "cmd": cmd, "payload": payload}
        return await self.client.post(APP, json=body)

    async def begin(self, cmd: str = "record", **payload: Any) -> str:
        """Start a task with a small picture; its id."""
        answer = await self.ask(cmd, {**SMALL, **payload})
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "enqueued"
        return str(answer.json()["task_id"])

    async def record(self, channel: str, **payload: Any) -> str:
        """Record a channel with a small picture; the task's id."""
        return await self.begin("record", channel=channel, **payload)

    async def end(self, task: str) -> Json:
        """The answer to a stop."""
        answer = await self.client.post(f"{APP}/{task}/stop", json={"request_id": "stop"})
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def view(self, task: str) -> Json:
        """Its status, as the contract has it."""
        answer = await self.client.post(f"{APP}/{task}/status", json={"request_id": "status"})
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    # -- what a monitor sees ----------------------------------------------------------

    def told(self, task: str, type: str = "") -> list[Json]:
        """All events of a task so far, or those of one type."""
        found = [e for e in self.events if e["subject"] == f"egress/{task}"]
        return [e for e in found if not type or e["type"] == f"egress.{type}"]

    async def hear(
        self,
        task: str,
        type: str,
        after: int = 0,
        when: Callable[[Json], bool] = lambda data: True,
        **data: Any,
    ) -> Json:
        """The first such event after a number, when it has come."""
        return await self.until(
            lambda e: (
                e["subject"] == f"egress/{task}"
                and e["type"] == f"egress.{type}"
                and all(e["data"].get(k) == v for k, v in data.items())
                and when(e["data"])
            ),
            after,
            f"egress.{type} of {task}",
        )

    async def recorded(self, task: str, seconds: float, after: int = 0) -> Json:
        """The progress of a part, when so many seconds of it are encoded."""
        event = await self.hear(task, "progress", after, lambda d: d["seconds"] >= seconds)
        return dict(event["data"])

    async def more(self, task: str, seconds: float, after: int = 0) -> Json:
        """The progress, when so many seconds more are encoded than now."""
        first = await self.hear(task, "progress", max(after, self.head))
        return await self.recorded(task, first["data"]["seconds"] + seconds, first["seq"])

    async def everybody(self, task: str, seconds: float) -> Json:
        """The progress, when so many seconds were recorded with all users there."""
        event = await self.hear(task, "progress", 0, lambda d: d["seconds"] > 0 and not d["away"])
        return await self.recorded(task, event["data"]["seconds"] + seconds)

    async def over(self, task: str) -> Json:
        """Its status, when it has ended."""
        await self.until(
            lambda e: e["subject"] == f"egress/{task}" and e["type"] in OVER, 0, f"end of {task}"
        )
        return await self.view(task)

    async def ended(self, task: str, reason: str = "user_stop") -> Json:
        """Stop it; its status when it has ended as it should."""
        await self.end(task)
        return await self.stopped(task, reason)

    async def stopped(self, task: str, reason: str = "max_duration") -> Json:
        """Its status, when it has ended as it should."""
        view = await self.over(task)
        assert (view["state"], view["reason"]) == ("STOPPED", reason), view
        return view

    def file(self, view: Json, format: str = "mp4") -> Path:
        """The one file of a format."""
        (name,) = [str(f["name"]) for f in view["files"] if f["format"] == format]
        return self.files(view["task_id"]) / name

    async def until(self, wanted: Callable[[Json], bool], after: int, what: str) -> Json:
        """See Fleet, with more patience."""
        looked_at = 0
        with trio.move_on_after(PATIENCE):
            while True:
                # Each event is looked at once: there may be many thousands.
                new, looked_at = self.events[looked_at:], len(self.events)
                for event in new:
                    if event["seq"] > after and wanted(event):
                        return event
                await self._more.wait()
        seen = [(e["type"], e["subject"], e["data"]) for e in self.events[-60:]]
        raise AssertionError(f"no {what} after {after}; seen: {seen}")

    # -- faults -------------------------------------------------------------------------

    def running(self, *words: str) -> list[psutil.Process]:
        """The processes of this appliance's tasks whose command line has all these words."""
        found = []
        for process in processes_of(self.appliance):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "switchboard.yaml" not in line and all(word in line for word in words):
                found.append(process)
        return found

    async def one(self, *words: str) -> psutil.Process:
        """The one process of that command line, when it is there. No event tells of it."""
        while len(found := self.running(*words)) != 1:
            await trio.sleep(0.02)
        return found[0]

    async def encoder(self, task: str) -> psutil.Process:
        """A recording's encoder."""
        return await self.one("ffmpeg", "libx264", f"/{task}/")

    async def feed(self, source: str) -> psutil.Process:
        """What brings a source to the mixer; `source` is a part of its address."""
        return await self.one("ffmpeg", "rawvideo", source)

    async def mixer(self) -> psutil.Process:
        """The one that there is. It has its settings from its pipe, not from its command line."""
        appliance = psutil.Process(self.appliance.pid)
        while True:
            found = [p for p in appliance.children() if "actors.egress.mixer" in p.cmdline()]
            if len(found) == 1:
                return found[0]
            await trio.sleep(0.02)

    def kill(self, process: psutil.Process) -> None:
        """As the kernel does when memory is short."""
        os.kill(process.pid, signal.SIGKILL)


@asynccontextmanager
async def studio(
    tmp_path: Path, config: Mapping[str, Any] | None = None, *, within: float = 90.0
) -> AsyncIterator[Studio]:
    """An appliance that runs, and a client of its tasks. `within`: seconds for the whole test."""
    whole = laid_over(QUICK, config or {})
    with trio.fail_after(within):
        async with running(tmp_path, whole) as appliance, Studio(appliance) as it:
            yield it


@asynccontextmanager
async def again(appliance: Appliance) -> AsyncIterator[Studio]:
    """Another client, after a restart: it hears everything from the beginning."""
    async with Studio(appliance) as it:
        yield it


def channel(**users: str | Path | Json) -> Json:
    """A configuration with the channel `room`: each user's address, file, or whole source."""
    sources = {
        name: source
        if isinstance(source, dict)
        else {"url": f"file:{source}" if isinstance(source, Path) else source}
        for name, source in users.items()
    }
    return {"egress": {"channels": {"room": {"users": sources}}}}
