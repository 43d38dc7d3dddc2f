"""Who is where on the picture, and heard in the sound."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.flows.egress.kit import channel, studio
from tests.flows.egress.media import (
    colour_at,
    ffmpeg,
    heard,
    in_gray,
    kinds,
    pictures,
    sound,
)

Colours = dict[str, Path]
THIRD = 1 / 3
# The middle of each user's place, as shares of the picture. A row that is not full is centred.
GRIDS = {
    ("red", "lime"): [(0.25, 0.5), (0.75, 0.5)],
    ("red", "lime", "blue"): [(0.25, 0.25), (0.75, 0.25), (0.5, 0.75)],
    ("red", "lime", "blue", "yellow"): [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)],
    ("red", "lime", "blue", "yellow", "white"): [
        *((THIRD / 2 + i * THIRD, 0.25) for i in range(3)),
        *((THIRD + i * THIRD, 0.75) for i in range(2)),
    ],
}


# A frame near the end, when everybody has come.
LATE = -5


async def test_each_user_has_its_place_in_the_grid_and_is_heard(
    tmp_path: Path, colours: Colours
) -> None:
    """The grid grows with the users; the sound has the tones of those who are there, no other."""
    rooms = {f"of{len(users)}": users for users in GRIDS}
    config = {
        "egress": {
            "channels": {
                room: {"users": {u: {"url": f"file:{colours[u]}"} for u in users}}
                for room, users in rooms.items()
            }
        }
    }
    async with studio(tmp_path, config) as it:
        tasks = {room: await it.record(room, format="mp4") for room in rooms}
        for room, users in rooms.items():
            await it.everybody(tasks[room], 2)
            path = it.file(await it.ended(tasks[room]))
            frame = pictures(path)[LATE]
            assert [colour_at(frame, x, y) for x, y in GRIDS[users]] == list(users), room
            assert heard(sound(path)) == set(users), room


async def test_the_spotlight_is_moved_while_it_records(tmp_path: Path, colours: Colours) -> None:
    users = ["red", "lime", "blue"]
    config = channel(**{u: colours[u] for u in users})
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format="mp4", layout="spotlight", spotlight="lime")
        await it.everybody(task, 2)
        answer = await it.client.post(
            f"/egress/v1/demo/tasks/{task}/spotlight", json={"request_id": "s", "user": "blue"}
        )
        assert answer.status_code == 200, answer.text
        at = await it.hear(task, "spotlight", user="blue")
        await it.more(task, 2, at["seq"])
        # Somebody who is not there cannot be the large one.
        answer = await it.client.post(
            f"/egress/v1/demo/tasks/{task}/spotlight", json={"request_id": "s", "user": "nobody"}
        )
        assert answer.status_code == 400
        frames = pictures(it.file(await it.ended(task)))
    # Large at the left; the others, smaller, in a column at the right, in their order.
    large = [colour_at(frame, 0.35, 0.5) for frame in frames]
    changes = [now for before, now in zip(["", *large], large, strict=False) if now != before]
    assert [c for c in changes if c != "dark"] == ["lime", "blue"]
    assert "dark" not in changes[1:], "there is nothing in between"
    small = [(0.875, 0.375), (0.875, 0.625)]
    first = frames[large.index("blue") - 2]
    assert [colour_at(first, x, y) for x, y in small] == ["red", "blue"]
    assert [colour_at(frames[LATE], x, y) for x, y in small] == ["red", "lime"]


async def test_rectangles_of_the_request_and_names_on_the_picture(
    tmp_path: Path, colours: Colours
) -> None:
    regions = [
        {"user": "red", "x": 0, "y": 0, "width": 80, "height": 180},
        {"user": "blue", "x": 160, "y": 90, "width": 160, "height": 90},
    ]
    config = channel(red=colours["red"], lime=colours["lime"], blue=colours["blue"])
    config["egress"]["channels"]["other"] = config["egress"]["channels"]["room"]
    async with studio(tmp_path, config) as it:
        plain = await it.record("room", format="mp4", layout="customized", regions=regions)
        named = await it.record("other", users=["blue"], format="mp4", names=True)
        await it.everybody(plain, 1.5)
        frame = pictures(it.file(await it.ended(plain)), 10, 320, 180)[LATE]
        # A picture keeps its shape in a place of another shape: bars above and below.
        wanted = {(0.125, 0.5): "red", (0.75, 0.75): "blue", (0.75, 0.25): "dark"}
        wanted |= {(0.375, 0.5): "dark", (0.125, 0.2): "dark"}
        assert {spot: colour_at(frame, *spot) for spot in wanted} == wanted

        await it.everybody(named, 1.5)
        frame = pictures(it.file(await it.ended(named)), 10, 320, 180)[LATE]
        label = in_gray(frame, 0.0, 0.8, 0.3, 0.2)
        assert label.max() > 180, "white letters at the lower left"
        assert in_gray(frame, 0.4, 0.1, 0.5, 0.6).max() < 100, "and nowhere else"


async def test_a_file_of_each_user(tmp_path: Path, colours: Colours) -> None:
    config = channel(red=colours["red"], lime=colours["lime"])
    async with studio(tmp_path, config) as it:
        task = await it.record(
            "room", format="mp4", individual=True, filename_pattern="talk/{user}"
        )
        await it.everybody(task, 2)
        view = await it.ended(task)
        assert {f["name"]: f["user"] for f in view["files"]} == {
            "talk/red.mp4": "red",
            "talk/lime.mp4": "lime",
        }
        for user in ("red", "lime"):
            path = it.files(task) / f"talk/{user}.mp4"
            frame = pictures(path)[LATE]
            seen = {colour_at(frame, x, y) for x in (0.05, 0.5, 0.95) for y in (0.05, 0.95)}
            assert seen == {user}
            assert heard(sound(path)) == {user}
            assert (kinds(path)["video"]["width"], kinds(path)["video"]["height"]) == (320, 180)


async def test_sources_that_lack_one_of_both(tmp_path: Path, colours: Colours) -> None:
    """Who has no picture has a card; who has no sound is silent."""
    silent, unseen = tmp_path / "silent.mp4", tmp_path / "unseen.m4a"
    ffmpeg("-i", colours["red"], "-an", "-c", "copy", silent)
    ffmpeg("-i", colours["lime"], "-vn", "-c", "copy", unseen)
    async with studio(tmp_path, channel(silent=silent, unseen=unseen)) as it:
        task = await it.record("room", format="mp4")
        await it.everybody(task, 2)
        path = it.file(await it.ended(task))
    frame = pictures(path)[LATE]
    assert colour_at(frame, 0.25, 0.5) == "red"
    card = in_gray(frame, 0.55, 0.3, 0.4, 0.4)
    assert card.min() < 60 < 120 < card.max(), "a dark card with the name on it"
    assert heard(sound(path)) == {"lime"}


async def test_a_user_comes_late_goes_and_comes_back(tmp_path: Path, colours: Colours) -> None:
    """While it is away there is a card in its place; the other goes on without a gap."""
    late = tmp_path / "late.mp4"
    config = channel(red=colours["red"], lime={"url": f"file:{late}", "loop": True})
    async with studio(tmp_path, config) as it:
        task = await it.record("room", format="mp4")
        gone = await it.hear(task, "user_gone", user="lime")
        await it.more(task, 1, gone["seq"])
        assert (await it.view(task))["away"] == ["lime"]
        late.symlink_to(colours["lime"])
        back = await it.hear(task, "user_back", gone["seq"], user="lime")
        await it.more(task, 1, back["seq"])
        late.unlink()
        it.kill(await it.feed(str(late)))
        gone = await it.hear(task, "user_gone", back["seq"], user="lime")
        await it.more(task, 1, gone["seq"])
        late.symlink_to(colours["lime"])
        back = await it.hear(task, "user_back", gone["seq"], user="lime")
        await it.more(task, 1, back["seq"])
        view = await it.ended(task)
        assert len(view["parts"]) == 1, "nothing was begun anew for it"
        path = it.file(view)
    with trio.fail_after(30):
        frames = pictures(path)
    assert {colour_at(frame, 0.25, 0.5) for frame in frames[2:]} == {"red"}
    seen = [colour_at(frame, 0.55, 0.35) for frame in frames]
    turns = [now for before, now in zip(["", *seen], seen, strict=False) if now != before]
    assert turns == ["dark", "lime", "dark", "lime"]
