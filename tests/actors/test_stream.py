"""Where a stream may go, and what ffmpeg is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway import stream
from actors.gateway.recording import HEADER, Format
from config.model import Stream
from supervisor.errors import Rejected
from supervisor.process import Command, Process
from tests.supervisor.procs import registry

HOSTS = ["live.example.com", "*.cdn.example.com", "127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("rtmp://live.example.com/app/key", "live.example.com"),
        ("rtmps://live.example.com:443/app/key?sign=a%20b", "live.example.com"),
        ("rtmp://LIVE.example.com/app", "live.example.com"),
        ("rtmp://a.cdn.example.com/app", "*.cdn.example.com"),
        ("rtmp://user:pass@live.example.com/app", "live.example.com"),
        ("rtmp://127.0.0.1:1935/app", "127.0.0.1"),
        ("rtmp://[::1]:1935/app", "::1"),
    ],
)
def test_a_destination_is_allowed_by_its_host_and_nothing_else(url: str, pattern: str) -> None:
    stream.check_destination(url, [pattern])
    others = [host for host in HOSTS if host != pattern]
    with pytest.raises(Rejected, match="is not in"):
        stream.check_destination(url, others)


@pytest.mark.parametrize("before", ["", "user:pass@", "live.example.com@", "a%40b:c@"])
async def test_the_host_that_was_allowed_is_the_one_that_is_called(
    tmp_path: Path, before: str
) -> None:
    """ffmpeg reads the address as we do: what comes first there is RTMP's version."""
    sound = tmp_path / "dump-1-dec.wav"
    sound.write_bytes(bytes(HEADER + 20 * 16000))
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    url = f"rtmp://{before}127.0.0.1:{port}/app/key"
    stream.check_destination(url, ["127.0.0.1"])
    command = Command(stream.arguments(sound, Format(8000, 1), Stream(), url))
    with trio.fail_after(20):
        async with listener, trio.open_nursery() as nursery:
            process = await nursery.start(Process(command, registry()).run)
            async with await listener.accept() as caller:
                assert (await caller.receive_some(1)) == b"\x03"
            await process.kill()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "live.example.com/app",
        "http://live.example.com/app",
        "file:///etc/passwd",
        "rtmp:///app",
        "rtmp://",
        "pipe:1",
        "-f",
        "rtmp://[::1/app",
        "concat:rtmp://live.example.com/a|/etc/passwd",
        "srt://live.example.com:9000",
    ],
)
def test_what_is_no_rtmp_address(url: str) -> None:
    with pytest.raises(Rejected, match="expected rtmp") as refused:
        stream.check_destination(url, HOSTS)
    assert refused.value.code == "invalid"


@pytest.mark.parametrize(
    "url",
    [
        "rtmp://example.com/app",
        "rtmp://cdn.example.com/app",
        "rtmp://live.example.com.evil.net/app",
        "rtmp://live.example.com@evil.net/app",
        "rtmp://169.254.169.254/app",
        "rtmp://evil.net/live.example.com",
        "rtmp://evil.net#live.example.com",
    ],
)
def test_a_host_that_is_not_allowed_is_named(url: str) -> None:
    with pytest.raises(Rejected, match=r"is not in gateways\.stream_hosts"):
        stream.check_destination(url, HOSTS)


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused_and_nothing_else(text: str) -> None:
    for url in (text, f"rtmp://{text}"):
        try:
            stream.check_destination(url, ["nowhere.invalid"])
        except Rejected:
            continue
        assert "nowhere.invalid" in url.lower()


def test_the_sound_is_followed_as_raw_samples_past_its_header() -> None:
    argv = stream.arguments(
        Path("/rec/dump-1-dec.wav"), Format(16000, 1), Stream(), "rtmp://h/app/key"
    )
    assert argv[0] == "ffmpeg"
    assert argv[-3:] == ["-f", "flv", "rtmp://h/app/key"]
    at = argv.index("s16le")
    assert argv[at : at + 11] == [
        "s16le",
        "-ar",
        "16000",
        "-ac",
        "1",
        "-skip_initial_bytes",
        "44",
        "-follow",
        "1",
        "-i",
        "file:/rec/dump-1-dec.wav",
    ]
    assert "smptebars=size=640x360:rate=5" in argv


def test_a_picture_is_scaled_to_the_streams_size() -> None:
    settings = Stream(picture="/logo.png", width=320, height=180, rate=2)
    argv = stream.arguments(Path("/x.wav"), Format(8000, 1), settings, "rtmp://h/a")
    at = argv.index("file:/logo.png")
    assert argv[at - 5 : at] == ["-loop", "1", "-framerate", "2", "-i"]
    assert "scale=320:180" in argv
