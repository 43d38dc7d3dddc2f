"""How long a recording is, told from files as a killed baresip leaves them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import trio

from actors.gateway import recording
from tests.supervisor.procs import registry

RATE = 8000


def header(rate: int = RATE, channels: int = 1, data: int = 0) -> bytes:
    """As libsndfile writes it first: the lengths are those of an empty file."""
    return (
        b"RIFF"
        + struct.pack("<I", 36 + data)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
        + b"data"
        + struct.pack("<I", data)
    )


def dump(folder: Path, seconds: float, side: str = "dec", name: str = "2026-1-2-03-04-05") -> Path:
    path = folder / f"dump-{name}-{side}.wav"
    path.write_bytes(header() + b"\x10\x00" * int(RATE * seconds))
    return path


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (48000, 2)])
def test_the_length_is_counted_not_believed(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "dump-x-dec.wav"
    path.write_bytes(header(rate, channels) + bytes(rate * channels * 2 * 3))
    assert recording.wav_format(path) == recording.Format(rate, channels)
    assert recording.seconds(path) == 3.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF",
        header()[:43],
        b"\0" * 44,
        b"OggS" + bytes(100),
        header(rate=0),
        header(channels=0),
    ],
    ids=["empty", "begun", "a byte short", "zeroes", "another kind", "no rate", "no channels"],
)
def test_a_header_that_is_not_there_yet_is_no_sound(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dump-x-dec.wav"
    path.write_bytes(content)
    assert recording.seconds(path) == 0.0


def test_a_file_that_is_not_there_is_no_sound(tmp_path: Path) -> None:
    assert recording.seconds(tmp_path / "none.wav") == 0.0


def test_a_session_counts_the_longer_side_of_each_call(tmp_path: Path) -> None:
    dump(tmp_path, 2.0, "dec", "1")
    dump(tmp_path, 3.0, "enc", "1")
    dump(tmp_path, 4.0, "dec", "2")
    (tmp_path / "call-0.wav").write_bytes(header() + bytes(RATE * 2 * 60))
    assert recording.recorded(tmp_path) == 7.0
    assert recording.recorded(tmp_path / "missing") == 0.0


SECOND = "dump-2026-1-2-03-04-05"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_baresip_writes_next_in_the_same_second_meets_nothing(tmp_path: Path) -> None:
    """The first call's file is written on under its new name."""
    with dump(tmp_path, 1.0, "dec").open("ab") as writing:
        dump(tmp_path, 1.0, "enc")
        recording.take(tmp_path)
        dump(tmp_path, 2.0, "dec")
        dump(tmp_path, 2.0, "enc")
        recording.take(tmp_path)
        writing.write(b"\x10\x00" * RATE * 3)
    assert names(tmp_path) == [
        f"{SECOND}-{n}-{side}.wav" for n in (1, 2) for side in ("dec", "enc")
    ]
    assert [recording.seconds(path) for path in recording.dumps(tmp_path)] == [4.0, 2.0]
    assert recording.recorded(tmp_path) == 6.0


def test_a_name_that_is_kept_is_not_taken_again(tmp_path: Path) -> None:
    heard = dump(tmp_path, 1.0)
    assert not recording.own(heard)
    # Whoever follows a file as it grows must not be given a name that is about to go.
    assert recording.dumps(tmp_path) == []
    assert recording.recorded(tmp_path) == 1.0
    recording.take(tmp_path)
    before = names(tmp_path)
    recording.take(tmp_path)
    assert names(tmp_path) == before
    assert all(recording.own(path) for path in recording.dumps(tmp_path))


def test_a_finished_call_of_the_same_second_keeps_its_file(tmp_path: Path) -> None:
    (tmp_path / "call-2026-1-2-03-04-05-1.wav").write_bytes(header())
    dump(tmp_path, 1.0)
    recording.take(tmp_path)
    (heard,) = recording.dumps(tmp_path)
    assert recording.target(heard).name == "call-2026-1-2-03-04-05-2.wav"


def test_two_sides_stay_one_call_when_the_power_goes_between_their_names(tmp_path: Path) -> None:
    dump(tmp_path, 1.0, "dec")
    dump(tmp_path, 2.0, "enc").rename(tmp_path / f"{SECOND}-1-enc.wav")
    recording.take(tmp_path)
    assert names(tmp_path) == [f"{SECOND}-1-dec.wav", f"{SECOND}-1-enc.wav"]


def test_names_of_others_are_left_alone(tmp_path: Path) -> None:
    for name in ("dump-x-dec.wav", "dump.wav", "call-2026-1-2-03-04-05.wav", f"{SECOND}-dec.part"):
        (tmp_path / name).touch()
    before = names(tmp_path)
    recording.take(tmp_path)
    recording.take(tmp_path / "missing")
    assert names(tmp_path) == before


def test_a_file_of_two_calls_is_seen_and_one_of_one_call_is_not(tmp_path: Path) -> None:
    both, one = dump(tmp_path, 1.0, name="both"), dump(tmp_path, 1.0, name="one")
    writer = "import sys; files = [open(f, 'ab') for f in sys.argv[1:]]; print(flush=True); input()"
    command = [sys.executable, "-IS", "-c", writer, str(both), str(both), str(one)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        assert recording.shared(process.pid) == [both]
        assert {both, one} <= recording.held_open(process.pid)
        process.stdin.close()
    assert recording.shared(process.pid) == []
    assert recording.shared(os.getpgid(0)) == []


async def test_both_sides_are_mixed_into_a_file_that_plays(tmp_path: Path) -> None:
    heard = dump(tmp_path, 2.0, "dec")
    dump(tmp_path, 3.0, "enc")
    with trio.fail_after(20):
        done = await recording.finish(heard, registry(), "/test")
    assert done is not None
    path, seconds, size = done
    assert path == recording.target(heard) == tmp_path / "call-2026-1-2-03-04-05.wav"
    assert size == path.stat().st_size
    with wave.open(str(path)) as sound:
        assert sound.getnframes() / sound.getframerate() == pytest.approx(3.0, abs=0.05)
    assert seconds == pytest.approx(3.0, abs=0.05)


async def test_one_side_alone_is_a_recording(tmp_path: Path) -> None:
    heard = dump(tmp_path, 1.0, "dec")
    (tmp_path / "dump-2026-1-2-03-04-05-enc.wav").write_bytes(header())
    with trio.fail_after(20):
        done = await recording.finish(heard, registry(), "/test")
    assert done is not None
    assert done[1] == pytest.approx(1.0, abs=0.05)


async def test_the_dumps_stay_until_they_are_discarded(tmp_path: Path) -> None:
    """A crash between the file and its row costs nothing: it is finished once more, the same."""
    heard, sent = dump(tmp_path, 1.0, "dec"), dump(tmp_path, 1.0, "enc")
    with trio.fail_after(40):
        first = await recording.finish(heard, registry(), "/test")
        assert heard.exists()
        assert sent.exists()
        assert await recording.finish(heard, registry(), "/test") == first
    recording.discard(heard)
    recording.discard(heard)
    assert [p.name for p in tmp_path.iterdir()] == ["call-2026-1-2-03-04-05.wav"]


async def test_a_call_without_sound_has_no_recording(tmp_path: Path) -> None:
    heard = tmp_path / "dump-x-dec.wav"
    heard.write_bytes(header())
    assert await recording.finish(heard, registry(), "/test") is None
    assert not recording.target(heard).exists()


async def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path: Path) -> None:
    heard = dump(tmp_path, 1.0)
    recording.target(heard).with_suffix(".part").symlink_to("/dev/full")
    with trio.fail_after(20), pytest.raises(OSError, match=r"could be written.*No space left"):
        await recording.finish(heard, registry(), "/test")
    assert [p.name for p in tmp_path.iterdir()] == [heard.name]
