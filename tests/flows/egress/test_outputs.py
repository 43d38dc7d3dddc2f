"""What comes out of a recording: files that play, of the right length, with sound and picture in
time, while it records and afterwards."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.appliance import ports as unused
from tests.flows.egress.kit import APP, SMALL, Studio, channel, studio
from tests.flows.egress.media import (
    apart,
    ffmpeg,
    kinds,
    off,
    photo,
    plays,
    seconds,
    shown,
    uneven,
    walking,
)

FORMATS = ["hls", "mp4", "ts", "mkv"]
AS_ONE = 0.3  # seconds: farther apart, sound and picture are seen to be
LIVE = {**SMALL["video"], "frameRate": 25}


@pytest.mark.alone
async def test_sound_and_picture_are_one_in_every_format(tmp_path: Path, beeper: Path) -> None:
    """All of one recording: each plays whole, has its size, its length, and an even pace."""
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=FORMATS, video=LIVE, max_duration=6)
        view = await it.stopped(task)
        assert [f["format"] for f in view["files"]] == FORMATS
        assert view["payload"]["files"] == [f["name"] for f in view["files"]]
        for file in view["files"]:
            path = it.files(task) / file["name"]
            plays(path)
            assert abs(seconds(path) - 6) <= 0.12, file
            assert abs(file["seconds"] - 6) <= 0.12, file
            if file["format"] != "hls":
                assert file["bytes"] == path.stat().st_size
            found = kinds(path)
            assert (found["video"]["codec_name"], found["audio"]["codec_name"]) == ("h264", "aac")
            assert (found["video"]["width"], found["video"]["height"]) == (320, 180)
            assert (found["audio"]["sample_rate"], found["audio"]["channels"]) == ("48000", 1)
            # A millisecond is what Matroska counts in.
            assert uneven(path, 25) <= 0.0015, file
            offsets = apart(path)
            assert len(offsets) >= 4
            assert max(map(abs, offsets)) <= AS_ONE, (file, offsets)


async def test_the_contracts_examples_as_they_stand(tmp_path: Path) -> None:
    """The channel's with the packaged sources; the page's host does not exist, and it says so."""
    native = {
        "request_id": "m2d3k03l",
        "cmd": "record",
        "payload": {
            "layout": "flat",
            "channel": "egress_test",
            "access_token": "007eJxt9VMp+//+i9SOE",
            "workerUid": 42,
            "users": ["user1", "user2"],
            "filename_pattern": "file_output",
            "format": "hls",
            "video": {"width": 1280, "height": 720, "frameRate": 30, "bitrate": 1000},
            "audio": {"sampleRate": 48000, "channels": 2, "bitrate": 128},
        },
    }
    web = {
        "request_id": "m2d3kw3l",
        "cmd": "record",
        "payload": {
            "layout": "freestyle",
            "url": "http://your_freestyle_canvas.good.example",
            "filename_pattern": "file_output",
            "webGL": False,
            "format": "hls",
            "video": {"width": 1280, "height": 720, "frameRate": 30, "bitrate": 1000},
            "audio": {"sampleRate": 48000, "channels": 2, "bitrate": 128},
        },
    }
    async with studio(tmp_path) as it:
        answer = await it.client.post(APP, json=native)
        assert answer.status_code == 200, answer.text
        task = answer.json()["task_id"]
        assert answer.json() == {
            "request_id": "m2d3k03l",
            "task_id": task,
            "status": "enqueued",
        }
        await it.everybody(task, 3)
        view = await it.view(task)
        assert (view["state"], view["payload"]["files"]) == ("PROCESSING", ["file_output.m3u8"])
        assert "007eJxt9VMp" not in str(view)
        assert (await it.end(task))["status"] == "enqueued"
        view = await it.stopped(task, "user_stop")
        path = it.files(task) / "file_output.m3u8"
        plays(path)
        found = kinds(path)
        assert (found["video"]["width"], found["video"]["height"]) == (1280, 720)
        assert (found["audio"]["sample_rate"], found["audio"]["channels"]) == ("48000", 2)
        assert uneven(path, 30) <= 0.001

        answer = await it.client.post(APP, json=web)
        assert answer.status_code == 200, answer.text
        view = await it.over(answer.json()["task_id"])
        assert view["state"] == "FAILED"
        assert "your_freestyle_canvas.good.example" in view["error"]
        assert re.search("name|resolve|exist", view["error"]), view["error"]


async def test_names_progress_and_what_is_growing(tmp_path: Path, beeper: Path) -> None:
    """Progress is in the status and told as events, not more often than the configuration says."""
    config = channel(user=beeper)
    config["egress"]["progress_every"] = 1.0
    config["egress"]["region"] = "eu/west"
    pattern = "{date}/{region}-{channel}-{task_id}"
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format="mp4", filename_pattern=pattern, video=LIVE)
        await it.recorded(task, 4)
        view = await it.view(task)
        progress = view["progress"]
        assert abs(progress["frames"] / 25 - progress["seconds"]) <= 1.5
        assert progress["bytes"] > 20_000
        assert 50 < progress["bitrate"] < 800
        assert 0.5 < progress["speed"] < 1.5
        (growing,) = view["files"]
        assert (growing["state"], growing["format"]) == ("growing", "hls")
        assert growing["seconds"] > 3
        view = await it.ended(task)
        (file,) = view["files"]
        assert file["name"] == f"{view['created_at'][:10]}/eu_west-room-{task}.mp4"
        assert (it.files(task) / file["name"]).stat().st_size == file["bytes"]
        told = it.told(task, "progress")
        assert len(told) <= file["seconds"] + 2
        for name in ("frames", "seconds", "bytes"):
            values = [e["data"][name] for e in told]
            assert values == sorted(values), name


async def test_it_plays_while_it_records_and_is_fetched_in_ranges(
    tmp_path: Path, beeper: Path
) -> None:
    async with studio(tmp_path, channel(user=beeper)) as it:
        task = await it.record("room", format=["hls", "mp4"], filename_pattern="live", video=LIVE)
        await it.recorded(task, 5)
        base = f"{it.appliance.url}{APP}/{task}/files"
        answer = await it.client.get(f"{base}/live.m3u8")
        assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
        assert "#EXT-X-ENDLIST" not in answer.text
        assert "#EXT-X-PLAYLIST-TYPE:EVENT" in answer.text

        header = f"Authorization: Bearer {it.appliance.token}\r\n"
        seen = tmp_path / "seen.ts"
        await trio.to_thread.run_sync(
            lambda: ffmpeg(
                *("-headers", header, "-live_start_index", "0", "-i", f"{base}/live.m3u8"),
                *("-t", "3", "-c", "copy", seen),
            )
        )
        assert (await it.view(task))["state"] == "PROCESSING"
        assert max(map(abs, apart(seen))) <= AS_ONE
        assert (await it.client.get(f"{base}/live.mp4")).status_code == 404, "not yet"

        await it.ended(task)
        whole = (it.files(task) / "live.mp4").read_bytes()
        answer = await it.client.get(f"{base}/live.mp4")
        assert (answer.headers["content-type"], answer.content) == ("video/mp4", whole)
        answer = await it.client.get(f"{base}/live.mp4", headers={"Range": "bytes=100-299"})
        assert (answer.status_code, answer.content) == (206, whole[100:300])
        assert answer.headers["content-range"] == f"bytes 100-299/{len(whole)}"
        answer = await it.client.get(f"{base}/live.mp4", headers={"Range": "bytes=-50"})
        assert (answer.status_code, answer.content) == (206, whole[-50:])
        beyond = {"Range": f"bytes={len(whole)}-"}
        assert (await it.client.get(f"{base}/live.mp4", headers=beyond)).status_code == 416
        assert "#EXT-X-ENDLIST" in (await it.client.get(f"{base}/live.m3u8")).text
        async with it.appliance.client(token=None) as stranger:
            assert (await stranger.get(f"{base}/live.mp4")).status_code == 401


# -- to an RTMP server --------------------------------------------------------------------


@contextmanager
def receiver(folder: Path) -> Iterator[tuple[str, Path]]:
    """ffmpeg as an RTMP server for one stream: its address, and the file that it writes."""
    url, file = f"rtmp://127.0.0.1:{unused()}/live/key", folder / "received.flv"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-listen", "1", "-i", url]
    command += ["-c", "copy", "-flush_packets", "1", f"file:{file}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield url, file
        process.wait(15)
    finally:
        process.kill()
        process.wait()


async def pushed(it: Studio, file: Path) -> None:
    """Something has arrived: seen in the file, which is all that a receiver has."""
    while not file.exists() or file.stat().st_size < 40_000:
        await trio.sleep(0.1)


@pytest.mark.parametrize("format", [pytest.param("mp4", marks=pytest.mark.soak), "none"])
async def test_an_rtmp_destination_beside_and_instead_of_files(
    tmp_path: Path, beeper: Path, format: str
) -> None:
    async with studio(tmp_path, channel(user=beeper)) as it:
        with receiver(tmp_path) as (url, file):
            task = await it.record("room", format=format, rtmp_dst=url, video=LIVE)
            await it.hear(task, "push_started")
            await pushed(it, file)
            view = await it.ended(task)
        assert "/live/key" not in str(it.told(task)), "the stream's key is a secret"
        assert [f["format"] for f in view["files"]] == [f for f in [format] if f != "none"]
        if format == "none":
            left = [p for p in it.files(task).rglob("*") if p.is_file()]
            assert left == [], "nothing is kept that was not asked for"
    found = kinds(file)
    assert (found["video"]["width"], found["audio"]["codec_name"]) == (320, "aac")
    assert max(map(abs, apart(file))) <= AS_ONE


# -- snapshots --------------------------------------------------------------------------


async def exact(tmp_path: Path, count: int, every: int, speed: float = 40.0) -> float:
    """How far the pictures are from their times at most, in seconds."""
    source = walking(tmp_path / "walk.mp4", int(count * every / 1000) + 15, speed)
    config = channel(user=source)
    async with studio(tmp_path, config, within=150) as it:
        task = await it.begin(
            "snapshot",
            channel="room",
            interval_in_ms=every,
            filename_pattern="s",
            video={"width": 640, "height": 90},
        )
        name = f"s-{count:06d}.jpg"
        while name not in (await it.view(task))["payload"]["files"]:
            await trio.sleep(0.2)
        view = await it.ended(task)
        names = [f["name"] for f in view["files"]]
        assert names[:count] == [f"s-{i:06d}.jpg" for i in range(1, count + 1)]
        answer = await it.client.get(f"{APP}/{task}/files/{names[0]}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content == (it.files(task) / names[0]).read_bytes()
        seen = [shown(photo(it.files(task) / name), speed) for name in names[:count]]
    # The first may be of before the source had come.
    start = seen[1] - every / 1000
    times = [start + i * every / 1000 for i in range(count)]
    worst = max(abs(off(seen[i], times[i], speed)) for i in range(1, count))
    print(f"snapshots: {worst:.3f} s off at most in {times[-1] - start:.0f} s")
    return worst


@pytest.mark.alone
async def test_snapshots_are_exact_to_a_tenth(tmp_path: Path) -> None:
    assert await exact(tmp_path, 8, 700) <= 0.1


@pytest.mark.soak
async def test_snapshots_are_exact_to_a_tenth_over_more_than_a_minute(tmp_path: Path) -> None:
    assert await exact(tmp_path, 90, 700) <= 0.1
