"""From parts to files with a real ffmpeg: nothing that was recorded is lost by what goes wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors.egress import playlist
from actors.egress.encode import PLAYLIST
from actors.egress.finish import HUNG, PROBE, Made, finish, tidy
from actors.egress.tracks import Folder, Track
from tests.actors.egress.footage import ALL, Footage
from tests.disk import Disk, small_disk
from tests.flows.egress.media import plays, seconds
from tests.supervisor.procs import gone, registry

BOB, EVE = Track("x-bob", ("bob",)), Track("x-eve", ("eve",))
AS_ONE = 0.2  # seconds


@pytest.fixture
def folder(tmp_path: Path, footage: Footage) -> Folder:
    """A task's, with two tracks that were recorded."""
    found = Folder(tmp_path / "task")
    for track in (BOB, EVE):
        footage.lay(found, track)
    return found


async def files(
    folder: Folder, track: Track, *formats: str, parts: list[int] = ALL
) -> tuple[list[Made], list[str]]:
    """What is made of a track, and what could not be."""
    return await finish(folder, track, parts, list(formats), registry(), "/test")


def left(folder: Folder) -> list[str]:
    """What has come beside the recording itself and the finished files."""
    found = {path.name for path in folder.root.rglob("*") if path.is_file()}
    return sorted(name for name in found if name.endswith((".part", ".tmp", ".new", "joined.m3u8")))


def instead(where: Path, name: str, script: str) -> None:
    """A program that is found before the real one."""
    where.mkdir(exist_ok=True)
    (where / name).write_text(f"#!/bin/sh\n{script}\n")
    (where / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are found before all others."""
    where = tmp_path / "tools"
    monkeypatch.setenv("PATH", f"{where}{os.pathsep}{os.environ['PATH']}")
    return where


# -- once and again ---------------------------------------------------------------------


async def test_the_segments_stay_until_they_are_tidied_up(folder: Folder, footage: Footage) -> None:
    """What was made before a kill is made again, the same, beside what had not been made."""
    first = await files(folder, BOB, "mp4")
    # What a kill during the second leaves.
    (folder.files / "x-eve.mp4.part").write_bytes(b"half")
    assert await files(folder, BOB, "mp4") == first
    assert (await files(folder, EVE, "mp4"))[1] == []
    assert left(folder) == []
    (made,) = first[0]
    assert (made.name, made.format, made.user) == ("x-bob.mp4", "mp4", "bob")
    for track in (BOB, EVE):
        file = folder.files / f"{track.name}.mp4"
        plays(file)
        assert abs(seconds(file) - footage.seconds) <= AS_ONE
        tidy(folder, track)
    assert sorted(p.name for p in folder.files.iterdir()) == ["x-bob.mp4", "x-eve.mp4"]


async def test_a_track_of_which_nothing_was_recorded_has_no_file(folder: Folder) -> None:
    assert await files(folder, Track("nobody", ()), "hls", "mp4") == ([], [])
    assert await files(folder, BOB, "mp4", parts=[]) == ([], [])


# -- no room ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small one."""
    with small_disk(tmp_path, "4m") as found:
        yield found


@pytest.mark.parametrize("formats", [("hls", "mp4"), ("mp4",)])
async def test_where_there_is_no_room_for_a_copy_the_segments_play(
    disk: Disk, footage: Footage, formats: tuple[str, ...]
) -> None:
    """Also where they were not asked for; when there is room again, the copy can be made."""
    folder = Folder(disk.root / "task")
    footage.lay(folder, BOB)
    disk.fill(room=64 * 1024)
    made, problems = await files(folder, BOB, *formats)
    assert [(file.name, file.format) for file in made] == [("x-bob.m3u8", "hls")]
    (problem,) = problems
    assert problem.startswith("x-bob.mp4: ")
    assert left(folder) == []
    assert not (folder.files / "x-bob.mp4").exists()
    assert abs(seconds(folder.files / "x-bob.m3u8") - footage.seconds) <= AS_ONE
    disk.clear()
    made, problems = await files(folder, BOB, *formats)
    assert ([file.format for file in made], problems) == (list(formats), [])
    plays(folder.files / "x-bob.mp4")


async def test_where_there_is_no_room_for_a_playlist_nothing_is_deleted(
    disk: Disk, footage: Footage
) -> None:
    folder = Folder(disk.root / "task")
    footage.lay(folder, BOB)
    disk.fill()
    before = sorted(folder.files.rglob("*.ts"))
    assert await files(folder, BOB, "hls", "mp4") == ([], ["x-bob: No space left on device"])
    assert sorted(folder.files.rglob("*.ts")) == before
    assert left(folder) == []
    disk.clear()
    assert (await files(folder, BOB, "hls", "mp4"))[1] == []


# -- programs that do not do as they should -----------------------------------------------


# Says who it is, and begins what it never ends.
HANGS = 'for last; do :; done; echo half > "${last#file:}"; echo $$ > %s; exec sleep 1000'


async def test_a_copy_that_hangs_is_given_up(
    folder: Folder, footage: Footage, tools: Path, mock_clock: MockClock
) -> None:
    """Within its deadline; the recording plays as it is, and the half is gone."""
    mock_clock.rate = 1.0
    told = folder.root / "pid"
    instead(tools, "ffmpeg", HANGS % told)
    done: list[tuple[list[Made], list[str]]] = []

    async def make() -> None:
        done.append(await files(folder, BOB, "mp4"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make)
        with trio.fail_after(20):
            while not (told.exists() and told.read_text().strip()):
                await trio.sleep(0.01)
        with trio.fail_after(40 * HUNG):
            while not done:
                mock_clock.jump(HUNG / 10)
                await trio.sleep(0.02)
    made, problems = done[0]
    assert [file.format for file in made] == ["hls"]
    (problem,) = problems
    assert problem == f"x-bob.mp4: nothing was written for {HUNG:g} s"
    assert left(folder) == []
    await gone(int(told.read_text()))
    assert abs(seconds(folder.files / "x-bob.m3u8") - footage.seconds) <= AS_ONE


async def test_a_copy_that_is_slow_gets_the_time_it_takes(
    folder: Folder, tools: Path, mock_clock: MockClock
) -> None:
    """As long as something comes."""
    mock_clock.rate = 1.0
    go, output = folder.root / "go", folder.files / "x-bob.mp4.part"
    waits = f'until [ -e "{go}-$n" ]; do sleep 0.01; done; echo more >> "{output}"'
    instead(tools, "ffmpeg", f'for n in 1 2 3; do {waits}; done; {shutil.which("ffmpeg")} "$@"')
    done: list[tuple[list[Made], list[str]]] = []

    async def make() -> None:
        done.append(await files(folder, BOB, "mp4"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make)
        for number in (1, 2):
            go.with_name(f"go-{number}").touch()
            with trio.fail_after(20):
                while not output.exists() or output.stat().st_size < len("more\n") * number:
                    await trio.sleep(0.01)
            # It is seen to have grown, and then not, for nearly too long.
            for jump in (1.1, 0.8 * HUNG):
                mock_clock.jump(jump)
                await trio.sleep(0.02)
        go.with_name("go-3").touch()
    made, problems = done[0]
    assert ([file.format for file in made], problems) == (["mp4"], [])


@pytest.mark.parametrize(
    ("there", "problem"),
    [
        ("ffprobe", "x-bob.mp4: No such file or directory"),
        ("ffmpeg", "x-bob.mp4: how much was written cannot be told"),
    ],
)
async def test_a_copy_that_cannot_be_begun_or_measured_is_a_problem(
    folder: Folder, tools: Path, monkeypatch: pytest.MonkeyPatch, there: str, problem: str
) -> None:
    tools.mkdir()
    (tools / there).symlink_to(str(shutil.which(there)))
    monkeypatch.setenv("PATH", str(tools))
    made, problems = await files(folder, BOB, "hls", "mp4")
    assert ([file.format for file in made], problems) == (["hls"], [problem])
    assert left(folder) == []


@pytest.mark.parametrize(
    "script", [pytest.param("exec sleep 1000", id="hangs"), pytest.param("kill -9 $$", id="killed")]
)
async def test_a_segment_of_which_nothing_could_be_told_is_kept(
    folder: Folder, footage: Footage, tools: Path, mock_clock: MockClock, script: str
) -> None:
    """One that an encoder did not live to name: it is looked at again the next time."""
    last = footage.cut_off(folder, BOB, 1)
    mock_clock.rate = 1.0
    instead(tools, "ffprobe", f"echo > {folder.root}/asked; {script}")
    done: list[list[Made]] = []

    async def make() -> None:
        done.append((await files(folder, BOB, "hls", parts=[1]))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make)
        with trio.fail_after(20):
            while not (folder.root / "asked").exists():
                await trio.sleep(0.01)
        with trio.fail_after(40 * PROBE):
            while not done:
                mock_clock.jump(PROBE / 10)
                await trio.sleep(0.02)
    assert last.exists()
    assert done[0][0].seconds < footage.lengths[0] - 1
    (tools / "ffprobe").unlink()
    ((made,), problems) = await files(folder, BOB, "hls", parts=[1])
    assert problems == []
    assert abs(made.seconds - footage.lengths[0]) <= AS_ONE


# -- playlists that are not whole ---------------------------------------------------------


def test_a_playlist_that_was_cut_off_anywhere_can_be_read(folder: Folder, footage: Footage) -> None:
    index = folder.part(BOB, 1) / PLAYLIST
    whole = index.read_text("utf-8")
    for end in range(len(whole)):
        index.write_text(whole[:end], "utf-8")
        assert playlist.total(playlist.read(index)) <= footage.lengths[0] + AS_ONE


@pytest.mark.parametrize("word", ["#EXTINF:", "#EXTINF:2.", "000001.", "000001.ts", "000000.ts"])
async def test_what_a_cut_off_playlist_does_not_name_is_found(
    folder: Folder, footage: Footage, word: str
) -> None:
    """As when the disk was full in the middle of it."""
    index = folder.part(BOB, 1) / PLAYLIST
    whole = index.read_text("utf-8")
    index.write_text(whole[: whole.rindex(word) + len(word)], "utf-8")
    ((made,), problems) = await files(folder, BOB, "hls", parts=[1])
    assert problems == []
    assert abs(made.seconds - footage.lengths[0]) <= AS_ONE
    file = folder.files / made.name
    plays(file)
    assert abs(seconds(file) - footage.lengths[0]) <= AS_ONE
