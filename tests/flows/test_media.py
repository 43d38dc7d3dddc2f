"""What becomes of a call's sound: an RTMP stream, a transcript.

Real parts: ffmpeg receives the stream, flite speaks, pocketsphinx listens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from config.load import load
from tests.appliance import ports as unused
from tests.flows.kit import QUICK, Fleet, Json, dominant, fleet, profiles, script, speech

SPOKEN = "please leave your message after the tone"


class Receiver:
    """ffmpeg as an RTMP server for one stream, written to a file as it comes."""

    def __init__(self, folder: Path) -> None:
        self.port = unused()
        self.url = f"rtmp://127.0.0.1:{self.port}/live/key"
        self.file = folder / "received.flv"

    def listen(self) -> subprocess.Popen[bytes]:
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-listen", "1", "-i", self.url]
        # Each packet is written as it comes, so that a test can see that any came.
        command += ["-c", "copy", "-flush_packets", "1", f"file:{self.file}"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def streams(self) -> list[Json]:
        command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(self.file)]
        out = subprocess.run(command, check=True, capture_output=True, timeout=20).stdout
        found: list[Json] = json.loads(out)["streams"]
        return found

    async def ended(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for it, and never leave it."""
        try:
            await trio.to_thread.run_sync(process.wait, 15)
        finally:
            process.kill()
            process.wait()


async def calling(it: Fleet, gateway: str, **more: Any) -> None:
    sip = (await it.status(gateway))["sip"]
    await it.up("caller", "baresip", dial=sip, **more)
    await it.event(gateway, "call_established")


async def test_a_calls_sound_arrives_under_a_picture(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    async with fleet(tmp_path) as it:
        server = receiver.listen()
        try:
            await it.up("gw01", "streaming", rtmp_dst=receiver.url)
            await calling(it, "gw01")
            await it.event("gw01", "stream_started")
            await trio.sleep(5)  # of sound
            await it.command("caller", "endCall")
            await it.event("gw01", "stream_ended")
        finally:
            await receiver.ended(server)
    kinds = {s["codec_type"]: s for s in receiver.streams()}
    assert kinds["audio"]["codec_name"] == "aac"
    assert kinds["video"]["codec_name"] == "h264"
    assert (kinds["video"]["width"], kinds["video"]["height"]) == (640, 360)
    assert abs(dominant(receiver.file) - 440) <= 20


async def test_a_destination_that_is_away_is_tried_until_it_is_there(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    async with fleet(tmp_path) as it:
        await it.up("gw01", "streaming", rtmp_dst=receiver.url)
        await calling(it, "gw01")
        failed = await it.event("gw01", "stream_failed")
        assert "refused" in failed["data"]["detail"]
        # Launching an encoder is not streaming.
        assert "stream_started" not in it.types("gw01")
        server = receiver.listen()
        try:
            started = await it.event("gw01", "stream_started", failed["seq"])
            # That it goes on from there is seen by what arrives.
            with trio.fail_after(20):
                while not receiver.file.exists() or receiver.file.stat().st_size < 30_000:
                    await trio.sleep(0.1)
            later = [e["type"] for e in it.of("gw01") if e["seq"] > started["seq"]]
            assert "gateway.stream_failed" not in later
            await it.command("caller", "endCall")
            await it.event("gw01", "stream_ended")
        finally:
            await receiver.ended(server)
    assert {s["codec_type"] for s in receiver.streams()} == {"audio", "video"}


@pytest.mark.parametrize("how", ["the appliance is stopped", "the gateway dies"])
async def test_a_stream_that_began_also_ends_in_the_log(tmp_path: Path, how: str) -> None:
    """Once, and before anything of the next run; what was sent until then has arrived whole."""
    receiver = Receiver(tmp_path)
    config = profiles(streaming={"restart": QUICK})
    async with fleet(tmp_path, config) as it:
        server = receiver.listen()
        try:
            await it.up("gw01", "streaming", rtmp_dst=receiver.url)
            await calling(it, "gw01")
            started = (await it.event("gw01", "stream_started"))["seq"]
            if how == "the gateway dies":
                os.kill((await it.status("gw01"))["pid"], signal.SIGKILL)
                await it.event("gw01", "stream_ended", started)
            assert await it.appliance.stop() == 0
        finally:
            await receiver.ended(server)
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            restarting = await again.event(
                "gw01", "restarting", started, reason="the appliance was restarted"
            )
            before = [e["type"] for e in again.of("gw01") if e["seq"] < restarting["seq"]]
            assert before.count("gateway.stream_started") == 1
            assert before.count("gateway.stream_ended") == 1
    assert {s["codec_type"] for s in receiver.streams()} == {"audio", "video"}


async def test_a_stream_without_or_to_a_forbidden_destination_is_refused(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"gateways": {"stream_hosts": ["live.example.com"]}}) as it:
        answer = await it.start("gw01", "streaming")
        assert answer.status_code == 422
        answer = await it.start("gw01", "streaming", rtmp_dst="rtmp://127.0.0.1/live/key")
        assert answer.status_code == 422
        assert "stream_hosts" in answer.json()["error"]["message"]
        assert it.types("gw01") == []


def speaker(file: Path) -> Json:
    """A profile whose gateway plays a file to whom it calls."""
    packaged = load(None).gateways.profiles["baresip"].files["config"]
    assert "audio_source ausine,440" in packaged
    text = packaged.replace("audio_source ausine,440", f"audio_source aufile,{file}")
    return {
        "command": ["baresip", "-f", "{folder}"],
        "control": "ctrl_tcp",
        "ready": {"when": "control", "timeout": 10},
        "stop": {"grace": 4},
        "files": {
            "accounts": "<sip:{gw_id}@{address}:{sip_port}>;regint=0;answermode=auto\n",
            "contacts": "",
            "config": text,
        },
    }


async def spoken(it: Fleet, seconds: float = 5.0, **more: Any) -> None:
    """A call in which the caller says the sentence, and that is over."""
    await it.up("gw01", "recording", transcript=True, **more)
    sip = (await it.status("gw01"))["sip"]
    await it.up("caller", "speaker", dial=sip)
    await it.event("gw01", "call_established")
    await trio.sleep(seconds)
    await it.command("caller", "endCall")
    await it.event("gw01", "recording_finished")


async def test_what_is_said_is_written_beside_the_recording(tmp_path: Path) -> None:
    said = speech(tmp_path / "said.wav", SPOKEN)
    async with fleet(tmp_path, profiles(speaker=speaker(said))) as it:
        await spoken(it)
        done = (await it.event("gw01", "transcript_done"))["data"]
        await it.is_("gw01", transcript_progress="100%")
        (recording,) = it.recordings("gw01")
        text = recording.with_suffix(".txt")
        assert done["file"] == str(text)
        words = set(text.read_text().split())
        assert words & {"please", "leave", "your", "message", "after", "tone"}, text.read_text()


async def test_progress_is_told_and_a_stopped_gateway_stays_until_it_is_done(
    tmp_path: Path,
) -> None:
    """Also when the transcript takes longer than a stopped gateway lingers."""
    gate = tmp_path / "gate"
    slow = script(
        tmp_path / "slow",
        f"#!/bin/sh\necho progress 45 >&2\nwhile [ ! -e {gate} ]; do sleep 0.1; done\necho hello\n",
    )
    config: Json = {"gateways": {"linger": 0.3, "transcribe": {"command": [str(slow), "{file}"]}}}
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "recording", transcript="true")
        await calling(it, "gw01")
        await trio.sleep(1.2)
        await it.command("caller", "endCall")
        await it.event("gw01", "recording_finished")
        await it.is_("gw01", transcript_progress="45%")
        await it.down("gw01")
        await trio.sleep(1.0)  # three times the linger
        gate.touch()
        await it.event("gw01", "transcript_done")
        await it.is_("gw01", transcript_progress="100%", gw_state="down")
        assert it.recordings("gw01")[0].with_suffix(".txt").read_text() == "hello\n"


async def test_a_transcription_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    broken = script(tmp_path / "broken", "#!/bin/sh\necho no model here >&2\nexit 3\n")
    config: Json = {"gateways": {"transcribe": {"command": [str(broken), "{file}"]}}}
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "recording", transcript=True)
        await calling(it, "gw01")
        await trio.sleep(1.2)
        await it.command("caller", "endCall")
        failed = (await it.event("gw01", "transcript_failed"))["data"]
        assert failed["reason"] == "it exited with status 3: no model here"
        assert "no model here" in (await it.status("gw01"))["detail"]
        assert (await it.status("gw01"))["gw_state"] == "up"


async def test_a_transcript_cut_short_by_kill_9_is_made_after_the_restart(tmp_path: Path) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    slow = script(
        tmp_path / "slow",
        f"#!/bin/sh\ntouch {begun}\nwhile [ ! -e {gate} ]; do sleep 0.1; done\necho hello\n",
    )
    config: Json = {"gateways": {"transcribe": {"command": [str(slow), "{file}"]}}}
    async with fleet(tmp_path, config) as it:
        await it.up("gw01", "recording", transcript=True)
        await calling(it, "gw01")
        await trio.sleep(1.2)
        await it.command("caller", "endCall")
        await it.event("gw01", "recording_finished")
        await it.down("gw01")
        while not begun.exists():
            await trio.sleep(0.05)
        await it.appliance.kill9()
        gate.touch()
        await it.appliance.start()
        async with Fleet(it.appliance) as again:
            await again.event("gw01", "transcript_done")
            assert it.recordings("gw01")[0].with_suffix(".txt").read_text() == "hello\n"
