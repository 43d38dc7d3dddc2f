"""Where picture and sound come from: each kind of source, and what sources do to a recording."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trio

from tests.appliance import ports as unused
from tests.flows.egress.kit import Studio, channel, studio
from tests.flows.egress.media import (
    apart,
    colour_at,
    coloured,
    ffmpeg,
    heard,
    in_gray,
    loudness,
    pictures,
    plays,
    sound,
)
from tests.flows.kit import Json

Colours = dict[str, Path]
AS_ONE = 0.3
LATE = -5


@contextmanager
def sending(*arguments: str | Path, patient: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """An ffmpeg that sends at the pace of life; `patient`: again until the other side is there."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-re", *map(str, arguments)]
    if patient:
        words = " ".join(f"'{word}'" for word in command)
        command = ["sh", "-c", f"until {words} 2>/dev/null; do sleep 0.2; done"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path, handler: type[_Quiet] = _Quiet) -> Iterator[str]:
    """The files of a folder over HTTP; the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def live(it: Studio, task: str, seconds: float) -> Path:
    """The file of a recording whose source has been there for so long."""
    await it.everybody(task, seconds)
    path = it.file(await it.ended(task))
    plays(path)
    return path


async def test_what_is_sent_to_us_by_rtmp_rtsp_and_srt(tmp_path: Path, beeper: Path) -> None:
    """Each waits to be called. Sound and picture are one, however they came."""
    rtmp = f"rtmp://127.0.0.1:{unused()}/live/{{user}}"
    rtsp = f"rtsp://127.0.0.1:{unused()}/{{user}}"
    port = unused()
    config = {
        "egress": {
            "channels": {
                "rtmp": {"users": {"u": {"url": rtmp, "listen": True}}},
                "rtsp": {"users": {"u": {"url": rtsp, "listen": True}}},
                "srt": {"users": {"u": {"url": f"srt://127.0.0.1:{port}", "listen": True}}},
            }
        }
    }
    copy = ("-i", beeper, "-c", "copy")
    async with studio(tmp_path, config) as it:
        tasks = {room: await it.record(room, format="mp4") for room in ("rtmp", "rtsp", "srt")}
        with (
            sending(*copy, "-f", "flv", rtmp.replace("{user}", "u")),
            sending(*copy, *("-f", "rtsp", "-rtsp_transport", "tcp", rtsp.replace("{user}", "u"))),
            sending(*copy, "-f", "mpegts", f"srt://127.0.0.1:{port}"),
        ):
            for room, task in tasks.items():
                path = await live(it, task, 3)
                offsets = apart(path)
                assert len(offsets) >= 2, room
                assert max(map(abs, offsets)) <= AS_ONE, (room, offsets)


@pytest.mark.soak
async def test_what_we_fetch_by_rtmp_and_hls(tmp_path: Path, beeper: Path) -> None:
    rtmp = f"rtmp://127.0.0.1:{unused()}/live/stream"
    folder = tmp_path / "hls"
    folder.mkdir()
    ffmpeg(
        *("-i", beeper, "-c", "copy", "-f", "hls", "-hls_time", "2", "-hls_list_size", "0"),
        folder / "index.m3u8",
    )
    with (
        served(folder) as base,
        sending("-i", beeper, "-c", "copy", "-f", "flv", "-listen", "1", rtmp),
    ):
        config = channel(hls={"url": f"{base}/index.m3u8", "options": ["-re"]})
        config["egress"]["channels"]["pull"] = {"users": {"u": {"url": rtmp}}}
        async with studio(tmp_path, config) as it:
            tasks = [await it.record(room, format="mp4") for room in ("room", "pull")]
            for task in tasks:
                offsets = apart(await live(it, task, 3))
                assert len(offsets) >= 2
                assert max(map(abs, offsets)) <= AS_ONE, offsets


async def test_the_sound_of_a_gateways_call(tmp_path: Path, colours: Colours) -> None:
    """A real call: its tone is heard, beside another user, and a card tells who it is."""
    async with studio(tmp_path, channel(call="gateway:gw01", red=colours["red"])) as it:
        sip = (await it.up("gw01", "recording"))["sip"]
        task = await it.record("room", format="mp4", users=["red", "call"])
        await it.hear(task, "user_gone", user="call")
        await it.up("caller", "baresip", dial=sip)
        back = await it.hear(task, "user_back", user="call")
        await it.more(task, 3, back["seq"])
        path = it.file(await it.ended(task))
    samples = sound(path)[-2 * 16000 :]
    assert loudness(samples, 440) > 0.02, "baresip's tone, which is also that of red"
    frame = pictures(path)[LATE]
    assert colour_at(frame, 0.25, 0.5) == "red"
    assert in_gray(frame, 0.55, 0.3, 0.4, 0.4).max() > 120, "the name on the card"


# -- what sources do --------------------------------------------------------------------


async def test_a_source_that_never_answers(tmp_path: Path, colours: Colours) -> None:
    """One that refuses and one that takes the call and says nothing: the other is recorded."""
    config = channel(
        red=colours["red"], refuses=f"rtmp://127.0.0.1:{unused()}/live/s", silent="filled below"
    )
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    config["egress"]["channels"]["room"]["users"]["silent"] = {
        "url": f"rtmp://127.0.0.1:{port}/a/b"
    }
    async with listener[0], studio(tmp_path, config) as it:
        task = await it.record("room", format="mp4", users=["red", "refuses", "silent"])
        for user in ("refuses", "silent"):
            await it.hear(task, "user_gone", user=user)
        lost = await it.hear(task, "source_lost", user="refuses")
        assert "refused" in lost["data"]["reason"]
        await it.more(task, 3, lost["seq"])
        assert (await it.view(task))["away"] == ["refuses", "silent"]
        assert it.told(task, "user_back") == [], "trying is not coming"
        path = it.file(await it.ended(task))
    frame = pictures(path)[LATE]
    assert colour_at(frame, 0.25, 0.25) == "red"
    assert in_gray(frame, 0.55, 0.05, 0.4, 0.4).max() > 120, "the card"


@pytest.mark.soak
async def test_a_channel_nobody_ever_comes_to_fails_with_a_reason(tmp_path: Path) -> None:
    config = channel(nobody=f"rtmp://127.0.0.1:{unused()}/live/s")
    config["egress"]["idle_timeout"] = 2
    async with studio(tmp_path, config) as it:
        view = await it.over(await it.record("room", format="mp4"))
        assert (view["state"], view["error"]) == ("FAILED", "no source has sent anything")


@pytest.mark.soak
async def test_a_sender_that_stands_still_and_goes_on(tmp_path: Path, colours: Colours) -> None:
    url = f"rtmp://127.0.0.1:{unused()}/live/s"
    config = channel(red=colours["red"], lime={"url": url, "listen": True})
    flv = ("-i", colours["lime"], "-c", "copy", "-f", "flv", url)
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format="mp4")
        with sending(*flv) as sender:
            await it.everybody(task, 2)
            os.killpg(sender.pid, signal.SIGSTOP)
            gone = await it.hear(task, "user_gone", it.head, user="lime")
            await it.more(task, 1, gone["seq"])
            os.killpg(sender.pid, signal.SIGCONT)
            back = await it.hear(task, "user_back", gone["seq"], user="lime")
            await it.more(task, 2, back["seq"])
        view = await it.ended(task)
        assert len(view["parts"]) == 1
        path = it.file(view)
    frames = pictures(path)
    assert colour_at(frames[LATE], 0.75, 0.5) == "lime"
    seen = {colour_at(frame, 0.55, 0.35) for frame in frames}
    assert seen == {"lime", "dark"}
    assert {colour_at(frame, 0.25, 0.5) for frame in frames[10:]} == {"red"}


@pytest.mark.soak
async def test_a_source_that_changes_its_size(tmp_path: Path, colours: Colours) -> None:
    """In the middle of one stream: it goes on, and so do the others."""
    both = joined(tmp_path, "320x240")
    config = channel(red=colours["red"], changes=both)
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format="mp4", users=["red", "changes"])
        await it.everybody(task, 7)
        view = await it.ended(task)
        assert it.told(task, "source_lost") == []
    lime_then_blue(it.file(view), view)


@pytest.mark.soak
async def test_a_source_that_changes_its_codec(tmp_path: Path, colours: Colours) -> None:
    """What is decoded as what it was before has no picture any more: it is opened anew."""
    both = joined(tmp_path, "160x90", "-c:v", "mpeg2video", "-r", "25")

    class Live(_Quiet):
        asked = 0

        def do_GET(self) -> None:
            """Whoever comes later comes into the middle."""
            Live.asked += 1
            self.path = "/both.ts" if Live.asked == 1 else "/again.ts"
            super().do_GET()

    with served(both.parent, Live) as base:
        live = {"url": f"{base}/live.ts", "options": ["-re"]}
        async with studio(tmp_path, channel(red=colours["red"], changes=live)) as it:
            task = await it.record("room", format="mp4", users=["red", "changes"])
            lost = await it.hear(task, "source_lost", user="changes")
            assert "decoded" in lost["data"]["reason"]
            await it.feed("live.ts")
            await it.more(task, 4)
            view = await it.ended(task)
    lime_then_blue(it.file(view), view)


def joined(folder: Path, size: str, *how: str) -> Path:
    """One stream of which the second part is of another kind."""
    first = coloured(folder / "first.ts", "lime", 4)
    again = coloured(folder / "again.ts", "blue", 40, size, ("-output_ts_offset", "4", *how))
    both = folder / "both.ts"
    both.write_bytes(first.read_bytes() + again.read_bytes())
    return both


def lime_then_blue(path: Path, view: Json) -> None:
    plays(path)
    assert len(view["parts"]) == 1
    frames = pictures(path)
    assert {colour_at(frame, 0.25, 0.5) for frame in frames[10:]} == {"red"}
    seen = [colour_at(frame, 0.75, 0.5) for frame in frames]
    assert "lime" in seen
    assert seen[LATE] == "blue"


@pytest.mark.soak
async def test_all_sources_end(tmp_path: Path) -> None:
    """Files that are over: the recording ends by itself, and is as long as they were."""
    config = channel(
        red=coloured(tmp_path / "red.mp4", "red", 3), lime=coloured(tmp_path / "l.mp4", "lime", 4)
    )
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format="mp4")
        view = await it.stopped(task, "source_ended")
        frames = pictures(it.file(view))
        assert heard(sound(it.file(view))) >= {"red", "lime"}
    assert "lime" in {colour_at(frame, 0.75, 0.5) for frame in frames[30:]}
    assert colour_at(frames[-1], 0.05, 0.35) == "dark", "the card of who has gone"
