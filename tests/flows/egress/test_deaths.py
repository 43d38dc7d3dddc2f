"""What works for a recording is killed, hangs or is late: little is lost, and it goes on."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.flows.egress.kit import Studio, again, channel, studio
from tests.flows.egress.media import (
    apart,
    beeps,
    pictures,
    plays,
    seconds,
    shown,
    walking,
)
from tests.flows.kit import Json, none_left

AS_ONE = 0.3
MOST_LOST = 2.0  # seconds
BOTH = ["hls", "mp4"]


def in_order(it: Studio, view: Json, count: int) -> Path:
    """It has so many parts, each is in the playlist behind the one before, and all play."""
    playlist = it.file(view, "hls")
    lines = playlist.read_text().splitlines()
    assert lines.count("#EXT-X-DISCONTINUITY") == count - 1
    assert lines[-1] == "#EXT-X-ENDLIST"
    places = [Path(line).parent.name for line in lines if not line.startswith("#")]
    assert places == sorted(places)
    assert sorted(set(places)) == [f"{i + 1:04d}" for i in range(count)]
    assert [part["part"] for part in view["parts"]] == list(range(1, count + 1))
    whole = sum(part["seconds"] for part in view["parts"])
    for kind in BOTH:
        path = it.file(view, kind)
        if count == 1:
            plays(path)
        assert abs(seconds(path) - whole) <= max(0.3 * count, 0.02 * whole), kind
        file = next(f for f in view["files"] if f["format"] == kind)
        assert abs(file["seconds"] - whole) <= max(0.3 * count, 0.02 * whole)
    return it.file(view)


async def next_part(it: Studio, task: str, number: int, seconds_: float) -> None:
    """So much of it is recorded."""
    started = await it.hear(task, "part_started", part=number)
    await it.recorded(task, seconds_, started["seq"])


@pytest.mark.parametrize("fps", [10, pytest.param(25, marks=pytest.mark.soak)])
async def test_an_encoder_is_killed(tmp_path: Path, fps: int) -> None:
    """At most two seconds of what was seen until then are lost, at any pace."""
    speed = 12.0
    source = walking(tmp_path / "walk.mp4", 45, speed)
    async with studio(tmp_path, channel(user=source)) as it:
        video = {"width": 640, "height": 90, "frameRate": fps}
        task = await it.record("room", format=BOTH, video=video)
        await it.everybody(task, 4)
        began = (await it.feed(str(source))).create_time()
        killed = time.time() - began
        it.kill(await it.encoder(task))
        await next_part(it, task, 2, 2)
        began = (await it.feed(str(source))).create_time()
        asked = time.time() - began
        view = await it.ended(task)
        in_order(it, view, 2)
        assert "SIGKILL" in view["parts"][0]["reason"]
        clock = [shown(frame, speed) for frame in pictures(it.file(view), fps, 640, 90)]
        # A second part shows the source from its beginning.
        last = next(a for a, b in itertools.pairwise(clock) if b < a - 1)
        # What a source takes to come, and what is on its way from it, an orderly end lacks too.
        lost = (killed - last) - (asked - clock[-1])
        print(f"lost by a killed encoder at {fps} fps: {lost:.2f} s, of {killed - last:.2f}")
        assert lost <= MOST_LOST


async def test_a_mixer_is_killed(tmp_path: Path, beeper: Path) -> None:
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=BOTH)
        before = (await it.everybody(task, 2))["seconds"]
        it.kill(await it.mixer())
        await next_part(it, task, 2, 3)
        view = await it.ended(task)
        path = in_order(it, view, 2)
        assert view["parts"][0]["seconds"] >= before
        assert "mixer" in view["parts"][0]["reason"]
    assert max(map(abs, apart(path))) <= AS_ONE


@pytest.mark.soak
async def test_a_source_is_killed(tmp_path: Path, beeper: Path) -> None:
    """It is begun again, and the part goes on."""
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=BOTH)
        await it.everybody(task, 2)
        it.kill(await it.feed(str(beeper)))
        lost = await it.hear(task, "source_lost", user="user")
        assert "SIGKILL" in lost["data"]["reason"]
        await it.feed(str(beeper))
        await it.more(task, 3, lost["seq"])
        view = await it.ended(task)
        path = in_order(it, view, 1)
    offsets = apart(path)
    assert len(offsets) >= 3
    assert max(map(abs, offsets)) <= AS_ONE


async def test_an_encoder_that_hangs_is_replaced(tmp_path: Path, beeper: Path) -> None:
    config = channel(user=beeper)
    config["egress"]["stalled_after"] = 2.5
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format=BOTH)
        await it.everybody(task, 2)
        hung = await it.encoder(task)
        os.kill(hung.pid, signal.SIGSTOP)
        broke = await it.hear(task, "recorder_broke")
        assert "stalled" in broke["data"]["reason"]
        await next_part(it, task, 2, 2)
        assert not hung.is_running()
        in_order(it, await it.ended(task), 2)


@pytest.mark.soak
async def test_an_encoder_that_always_fails_is_given_up(tmp_path: Path, beeper: Path) -> None:
    """And the task says why; what was recorded until then plays."""
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=BOTH)
        await it.everybody(task, 2)

        async def murder() -> None:
            while True:
                it.kill(await it.encoder(task))
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(murder)
            view = await it.over(task)
            nursery.cancel_scope.cancel()
        assert view["state"] == "FAILED"
        assert "encoder" in view["error"]
        assert view["files"], "what there is of it"
        assert seconds(it.file(view)) >= 2


# -- the appliance ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["kill -9", pytest.param("an orderly stop", marks=pytest.mark.soak)]
)
async def test_the_appliance_ends_while_it_records(tmp_path: Path, beeper: Path, how: str) -> None:
    """After the next start it goes on in another part; the whole is the sum of both."""
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=BOTH, video={"width": 320, "height": 180})
        before = (await it.everybody(task, 3))["seconds"]
        if how == "kill -9":
            await it.appliance.kill9()
        else:
            assert await it.appliance.stop() == 0
        await none_left(it.appliance, "ffmpeg")
        await it.appliance.start()
        async with again(it.appliance) as it:
            await next_part(it, task, 2, 3)
            view = await it.view(task)
            assert view["state"] == "PROCESSING"
            assert view["progress"]["seconds"] < 20
            path = in_order(it, await it.ended(task), 2)
            first = view["parts"][0]
            assert first["seconds"] >= before - MOST_LOST
    assert max(map(abs, apart(path))) <= AS_ONE
    assert len(beeps(path)) >= 4


@pytest.mark.soak
async def test_max_duration_counts_all_parts(tmp_path: Path, beeper: Path) -> None:
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=BOTH, max_duration=6)
        await it.everybody(task, 2)
        await it.appliance.kill9()
        await it.appliance.start()
        async with again(it.appliance) as it:
            view = await it.stopped(task)
            path = in_order(it, view, 2)
            assert abs(seconds(path) - 6) <= 0.3


async def test_killed_while_the_files_are_made(tmp_path: Path, beeper: Path) -> None:
    """They are made by the next start; a half one is never shown."""
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=BOTH)
        await it.everybody(task, 3)
        # The one that copies to mp4 is held as it begins.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.end, task)
            remux = await it.one("ffmpeg", "-map 0 -c copy", task)
            os.kill(remux.pid, signal.SIGSTOP)
        assert [f for f in (await it.view(task))["files"] if f["format"] == "mp4"] == []
        await it.appliance.kill9()
        await it.appliance.start()
        async with again(it.appliance) as it:
            view = await it.stopped(task, "user_stop")
            in_order(it, view, 1)
            left = [p for p in it.files(task).rglob("*") if p.name.endswith((".part", ".tmp"))]
            assert left == []


@pytest.mark.soak
async def test_a_lease_runs_out_while_the_appliance_stands_still(
    tmp_path: Path, beeper: Path
) -> None:
    """Nobody else has taken it: whoever holds it goes on, or the task goes on with another."""
    config = channel(user=beeper)
    config["egress"] |= {"lease": 1.5, "renew": 0.5}
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format=BOTH)
        await it.everybody(task, 2)
        it.appliance.signal(signal.SIGSTOP)
        await trio.sleep(3)  # twice the lease
        it.appliance.signal(signal.SIGCONT)
        now = it.head
        await it.hear(task, "progress", now, lambda d: d["seconds"] > 0)
        await it.more(task, 2)
        view = await it.ended(task)
        parts = len(view["parts"])
        assert parts <= 2
        in_order(it, view, parts)


# -- stops and starts -------------------------------------------------------------------


async def test_stops_at_any_time(tmp_path: Path, beeper: Path) -> None:
    """Before it is claimed, while it starts, twice, and of what has ended."""
    config = channel(user=beeper)
    config["egress"]["limits"] = {"tasks": 1}
    async with studio(tmp_path, config) as it:
        first = await it.record("room", format="mp4")
        waiting = await it.record("room", format="mp4")
        await it.hear(first, "processing")
        view = await it.view(waiting)
        assert (view["state"], view["waiting_for"] != "") == ("ENQUEUED", True)
        await it.end(waiting)
        view = await it.stopped(waiting, "user_stop")
        assert (view["files"], view["parts"]) == ([], [])

        await it.hear(first, "part_started")
        began = time.monotonic()
        answers = [await it.end(first), await it.end(first)]
        assert {a["status"] for a in answers} == {"enqueued"}
        await it.stopped(first, "user_stop")
        took = time.monotonic() - began
        # It does not wait until something would have been killed.
        assert took < 8
        assert (await it.end(first))["status"] == "completed"
        assert [e["type"] for e in it.told(first)].count("egress.stopped") == 1

        third = await it.record("room", format="mp4")
        await it.everybody(third, 1)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(it.end, third)
        view = await it.stopped(third, "user_stop")
        plays(it.file(view))
        assert it.running("ffmpeg") == []


async def test_twenty_starts_at_once(tmp_path: Path) -> None:
    """Each records, with its own picture and sound, and ends by itself."""
    await at_once(tmp_path, 20, 1)


@pytest.mark.soak
async def test_two_hundred_starts_at_once(tmp_path: Path) -> None:
    await at_once(tmp_path, 200, 2, within=900)


async def at_once(tmp_path: Path, count: int, length: float, within: float = 90) -> None:
    small: dict[str, Any] = {
        "video": {"width": 64, "height": 64, "frameRate": 5, "bitrate": 64},
        "audio": {"sampleRate": 8000, "channels": 1, "bitrate": 16},
    }
    config: Json = {
        "egress": {
            "channels": {"*": {"users": {"user": {"url": "test:{channel}"}}}},
            "limits": {"tasks": 10, "record": 10},
            "claim_timeout": 900,
        }
    }
    async with studio(tmp_path, config, within=within) as it:
        tasks: list[str] = []

        async def start(number: int) -> None:
            tasks.append(
                await it.begin(channel=f"c{number}", format="mp4", max_duration=length, **small)
            )

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(start, number)
        assert len(set(tasks)) == count
        for task in tasks:
            while not any(e["data"].get("state") == "STOPPED" for e in it.told(task)):
                await it.until(lambda e: e["type"] == "egress.stopped", it.head, "end of any")
            view = await it.stopped(task)
            assert abs(view["files"][0]["seconds"] - length) <= 0.3
        assert it.running("ffmpeg") == []
        assert [
            p for p in psutil.Process(it.appliance.pid).children() if p.name() == "ffmpeg"
        ] == []
