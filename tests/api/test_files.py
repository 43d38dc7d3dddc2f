"""Files of tasks over HTTP: what is served, in which ranges, and what never is.

Ranges are those of RFC 9110, section 14.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from api.files import PIECE, span
from tests.api.egress import APP, IDLE, files_of, is_named, over, started
from tests.api.raw import raw, request
from tests.appliance import Appliance

WHOLE = bytes(range(256)) * 4
SIZE = len(WHOLE)


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance that takes tasks and begins none."""
    appliance = Appliance(tmp_path_factory.mktemp("files"), IDLE)
    try:
        trio.run(appliance.start)
        yield appliance
        assert trio.run(appliance.stop) == 0
        assert "request_failed" not in appliance.log.read_text()
    finally:
        trio.run(appliance.end)


@pytest.fixture(scope="module")
def task(idle: Appliance) -> str:
    """A task that has ended, with a file `x.mp4`."""

    async def make() -> str:
        async with idle.client() as client:
            return await over(client)

    found = trio.run(make)
    (files_of(idle, found) / "x.mp4").write_bytes(WHOLE)
    return found


# -- ranges -----------------------------------------------------------------------------

RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-99", 0, 100),
    ("bytes=100-199", 100, 100),
    ("bytes=100-", 100, SIZE - 100),
    ("bytes=-1", SIZE - 1, 1),
    ("bytes=-100", SIZE - 100, 100),
    # What reaches beyond the end ends there.
    (f"bytes=100-{SIZE}", 100, SIZE - 100),
    ("bytes=0-99999999", 0, SIZE),
    ("bytes=-99999999", 0, SIZE),
    (f"bytes={SIZE - 1}-", SIZE - 1, 1),
]
# Another unit, several ranges, and what is no range are as if nothing had been said.
WHOLES = [
    "",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=1",
    "bytes=9-1",
    "bytes=--1",
    "bytes=0-0,2-3",
    "bytes=0-0, 2-3",
    "items=0-1",
    "bytes=0-1 2",
    "bytes=" + "9" * 100 + "-",
]
NOTHING = [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=99999999-", "bytes=-0"]


@pytest.mark.parametrize(("wanted", "first", "count"), RANGES)
async def test_a_range(idle: Appliance, task: str, wanted: str, first: int, count: int) -> None:
    assert span(wanted, SIZE) == (first, count)
    async with idle.client() as client:
        answer = await client.get(f"{APP}/{task}/files/x.mp4", headers={"Range": wanted})
    assert answer.status_code == 206
    assert answer.content == WHOLE[first : first + count]
    assert answer.headers["content-range"] == f"bytes {first}-{first + count - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(count)


@pytest.mark.parametrize("wanted", WHOLES)
async def test_what_is_no_range_is_the_whole(idle: Appliance, task: str, wanted: str) -> None:
    assert span(wanted, SIZE) is None
    async with idle.client() as client:
        answer = await client.get(f"{APP}/{task}/files/x.mp4", headers={"Range": wanted})
    assert answer.status_code == 200
    assert answer.content == WHOLE
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("wanted", NOTHING)
async def test_a_range_with_nothing_in_it(idle: Appliance, task: str, wanted: str) -> None:
    async with idle.client() as client:
        answer = await client.get(f"{APP}/{task}/files/x.mp4", headers={"Range": wanted})
    assert is_named(answer, 416).startswith("range: ")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d{0,4}-\d{0,4}"), st.integers(0, 2000))
def test_any_range_is_inside_or_refused(wanted: str, size: int) -> None:
    try:
        found = span(wanted, size)
    except ValueError:
        return
    if found is not None:
        first, count = found
        assert 0 <= first < first + count <= size


async def test_a_range_that_is_meant_for_another_file_is_the_whole(
    idle: Appliance, task: str
) -> None:
    """If-Range (RFC 9110, 13.1.5): a download that goes on after the file was made anew."""
    url = f"{APP}/{task}/files/x.mp4"
    async with idle.client() as client:
        tag = (await client.head(url)).headers["etag"]
        wanted = {"Range": "bytes=100-", "If-Range": tag}
        assert (await client.get(url, headers=wanted)).status_code == 206
        for other in ('"another"', f"W/{tag}", "Sat, 31 Jan 2026 23:59:59 GMT"):
            answer = await client.get(url, headers=wanted | {"If-Range": other})
            assert (answer.status_code, answer.content) == (200, WHOLE)


async def test_the_tag_of_a_file_changes_with_it(idle: Appliance) -> None:
    async with idle.client() as client:
        mine = await over(client)
        file = files_of(idle, mine) / "y.ts"
        file.write_bytes(b"one")
        url = f"{APP}/{mine}/files/y.ts"
        first = (await client.get(url)).headers["etag"]
        assert (await client.get(url)).headers["etag"] == first
        file.write_bytes(b"two")
        os.utime(file, (1, 1))
        assert (await client.get(url)).headers["etag"] != first


# -- HEAD, types, sizes -------------------------------------------------------------------


async def test_head_is_get_without_the_file(idle: Appliance, task: str) -> None:
    url = f"{APP}/{task}/files/x.mp4"
    async with idle.client() as client:
        there, here = await client.get(url), await client.head(url)
        assert (here.status_code, here.content) == (200, b"")
        for name in ("content-length", "content-type", "accept-ranges", "etag"):
            assert here.headers[name] == there.headers[name]
        # Ranges are GET's (RFC 9110, 14.2).
        assert (await client.head(url, headers={"Range": "bytes=0-9"})).status_code == 200
        missing = await client.head(f"{APP}/{task}/files/none.mp4")
        assert (missing.status_code, missing.content) == (404, b"")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("a.ts", "video/mp2t"),
        ("a.mp4", "video/mp4"),
        ("a.mkv", "video/x-matroska"),
        ("a.jpg", "image/jpeg"),
        ("a.segments/0001/000000.ts", "video/mp2t"),
        ("über/die Straße – 漢.mp4", "video/mp4"),
    ],
)
async def test_each_file_has_its_type(idle: Appliance, task: str, name: str, kind: str) -> None:
    path = files_of(idle, task) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    async with idle.client() as client:
        answer = await client.get(f"{APP}/{task}/files/{name}")
    assert (answer.status_code, answer.content) == (200, b"content")
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, 3 * PIECE + 1])
async def test_files_of_any_size_come_whole(idle: Appliance, task: str, size: int) -> None:
    content = os.urandom(size)
    (files_of(idle, task) / f"{size}.ts").write_bytes(content)
    async with idle.client() as client:
        answer = await client.get(f"{APP}/{task}/files/{size}.ts")
        assert answer.headers["content-length"] == str(size)
        assert answer.content == content


async def test_a_playlist_of_a_task_that_has_not_ended_is_not_kept(idle: Appliance) -> None:
    """It is as it stands on the disk until there are parts of it."""
    async with idle.client() as client:
        mine = await started(client)
        url = f"{APP}/{mine}/files/x.m3u8"
        is_named(await client.get(url), 404)
        (files_of(idle, mine) / "x.m3u8").write_text("#EXTM3U\n")
        assert (await client.get(url)).text == "#EXTM3U\n"


# -- what is never served -----------------------------------------------------------------

SECRET = b"nobody's business"


@pytest.fixture(scope="module")
def traps(idle: Appliance, task: str) -> Path:
    """Files that are none of a client's, with the endings of those that are, and links to them."""
    files = files_of(idle, task)
    root = files.parent
    (root / "joined.m3u8").write_bytes(SECRET)
    (root / "run").mkdir()
    (root / "run" / "x.ts").write_bytes(SECRET)
    (root.parent / "secret.mp4").write_bytes(SECRET)
    (idle.folder / "secret.mp4").write_bytes(SECRET)
    (files / "link.mp4").symlink_to(idle.folder / "secret.mp4")
    (files / "folder").symlink_to(root / "run")
    (files / "loop.mp4").symlink_to(files / "loop.mp4")
    (files / "dangling.mp4").symlink_to(files / "nowhere.mp4")
    (files / "inside.mp4").symlink_to(files / "x.mp4")
    for name in ("x.mp4.part", "y.m3u8.tmp", "z.txt", "z", "w.json", ".mp4"):
        (files / name).write_bytes(SECRET)
    (files / "folder.mp4").mkdir()
    return files


@pytest.mark.parametrize(
    "name",
    [
        "../joined.m3u8",
        "../run/x.ts",
        "..%2Fjoined.m3u8",
        "%2e%2e/joined.m3u8",
        "%2e%2e%2fjoined.m3u8",
        "%2E%2E%5Cjoined.m3u8",
        "..%5cjoined.m3u8",
        "../../secret.mp4",
        "../../../secret.mp4",
        "x/../../joined.m3u8",
        "./x.mp4",
        "x//../x.mp4",
        "/x.mp4",
        "%2Fx.mp4",
        "//etc/x.mp4",
        "%00x.mp4",
        "x.mp4%00",
        "joined.m3u8%00.mp4",
        "x%0a.mp4",
        "%ff%fe.mp4",
        "%ed%a0%80.mp4",
        "link.mp4",
        "folder/x.ts",
        "loop.mp4",
        "dangling.mp4",
        "folder.mp4",
        "x.mp4.part",
        "y.m3u8.tmp",
        "z.txt",
        "z",
        "w.json",
        "x.mp4/",
        "x.mp4/y.mp4",
        "x.mp4/y.m3u8",
        "nothing.mp4",
        "~/x.mp4",
        "*.mp4",
        "a" * 300 + ".mp4",
        "a" * 300 + ".m3u8",
        "a/" * 2000 + "x.mp4",
    ],
)
async def test_what_is_never_served(idle: Appliance, task: str, traps: Path, name: str) -> None:
    assert traps.exists()
    async with raw(idle) as connection:
        await connection.send(request(idle, "GET", f"{APP}/{task}/files/{name}"))
        answer = await connection.answer()
    assert SECRET not in answer.body
    assert WHOLE not in answer.body
    assert answer.status in (400, 404), answer
    assert answer.headers["content-type"] == "application/json"


async def test_a_link_inside_the_folder_is_a_file(idle: Appliance, task: str, traps: Path) -> None:
    assert traps.exists()
    async with idle.client() as client:
        assert (await client.get(f"{APP}/{task}/files/inside.mp4")).content == WHOLE


async def test_the_names_of_tasks_that_run_are_refused_alike(
    idle: Appliance, task: str, traps: Path
) -> None:
    """Their playlists are looked for in other places than those of tasks that have ended."""
    assert traps.exists()
    async with idle.client() as client:
        mine = await started(client)
        for name in ("a" * 300, "x.mp4/y", "a/" * 1000 + "x", f"..%2F..%2F{task}%2Ffiles%2Fx"):
            answer = await client.get(f"{APP}/{mine}/files/{name}.m3u8")
            assert answer.status_code == 404, name


async def test_files_of_other_tasks_and_apps_are_not_there(idle: Appliance, task: str) -> None:
    async with idle.client() as client:
        other = await over(client)
        is_named(await client.get(f"{APP}/{other}/files/x.mp4"), 404)
        is_named(await client.get(f"/egress/v1/app2/tasks/{task}/files/x.mp4"), 404)
        is_named(await client.get(f"{APP}/..%2F{task}/files/x.mp4"), 404)
        is_named(await client.get(f"{APP}/{'0' * 16}/files/x.mp4"), 404)
        is_named(await client.get(f"/egress/v1/a%20b/tasks/{task}/files/x.mp4"), 400)


async def test_a_file_is_fetched_with_a_token(idle: Appliance, task: str) -> None:
    async with idle.client(token=None) as client:
        is_named(await client.get(f"{APP}/{task}/files/x.mp4"), 401)


async def test_a_reader_that_hangs_up_costs_nothing(idle: Appliance, task: str) -> None:
    """The rest of the file is not read for nobody: this one would take minutes."""
    with (files_of(idle, task) / "large.ts").open("wb") as file:
        file.truncate(2**38)
    for _ in range(5):
        async with raw(idle) as connection:
            await connection.send(request(idle, "GET", f"{APP}/{task}/files/large.ts"))
            assert (await connection.head()).status == 200
    async with idle.client() as client:
        with trio.fail_after(20):
            while (await client.get("/system/tree")).json()["counts"]["connections"] > 1:
                await trio.sleep(0.05)
        assert (await client.get("/healthz")).json()["problems"] == []
