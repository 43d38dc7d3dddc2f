"""Where users' pictures and sound come from: templates, what is refused, and ffmpeg's arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors.egress import sources
from actors.egress.request import Wanted, understand
from actors.egress.sources import Origin, Shape, feed_arguments, origins
from config.load import load
from config.model import Channel, Source
from supervisor.errors import Rejected
from supervisor.process import Command, Process
from tests.actors.egress.examples import NATIVE
from tests.supervisor.procs import registry

FIELDS = {"app_id": "app1", "task_id": "1ab", "access_token": "t/+ k?&#", "workerUid": "42"}
SHAPE = Shape(((640, 360),), 25, 48000, 2)


def channels(**users: Source | str) -> dict[str, Channel]:
    """One channel, `room`."""
    made = {u: Source(url=s) if isinstance(s, str) else s for u, s in users.items()}
    return {"room": Channel(users=made)}


def wanted(*users: str, channel: str = "room", **more: Any) -> Wanted:
    return understand("record", {"channel": channel, "users": list(users), **more})[1]


def found(url: str, user: str = "a", channel: str = "room", **fields: str) -> str:
    """The address that a template comes to."""
    known = {"*": Channel(users={"*": Source(url=url)})}
    return origins(known, wanted(user, channel=channel), {**FIELDS, **fields})[0].url


# -- who is on a recording ------------------------------------------------------------


def test_the_example_records_with_the_default_configuration() -> None:
    _, native = understand(NATIVE["cmd"], NATIVE["payload"])
    assert [(o.user, o.url) for o in origins(load(None).egress.channels, native, FIELDS)] == [
        ("user1", "test:user1"),
        ("user2", "test:user2"),
    ]


def test_users_are_in_the_order_of_the_request_and_all_without_one() -> None:
    known = channels(a="test:a", b="test:b", **{"*": "test:{user}"})
    assert [o.url for o in origins(known, wanted("x", "b"), FIELDS)] == ["test:x", "test:b"]
    assert [o.url for o in origins(known, wanted(), FIELDS)] == ["test:a", "test:b"]


def test_a_channel_of_any_name_is_the_star() -> None:
    known = {**channels(a="test:a"), "*": Channel(users={"a": Source(url="test:any")})}
    assert [o.url for o in origins(known, wanted("a"), FIELDS)] == ["test:a"]
    assert [o.url for o in origins(known, wanted("a", channel="x"), FIELDS)] == ["test:any"]


@pytest.mark.parametrize(
    ("known", "asked", "why"),
    [
        ({}, wanted("a"), "channel 'room' has no sources: see egress.channels (there are: none)"),
        (channels(a="test:a"), wanted("a", channel="hall"), "(there are: room)"),
        (channels(a="test:a"), wanted("b"), "user 'b' has no source in channel 'room'"),
        (channels(**{"*": "test:x"}), wanted(), "name the users: the channel has only a pattern"),
    ],
)
def test_what_nothing_is_known_of(known: dict[str, Channel], asked: Wanted, why: str) -> None:
    with pytest.raises(Rejected) as refused:
        origins(known, asked, FIELDS)
    assert refused.value.code == "not_configured"
    assert why in refused.value.message


def test_a_customized_layout_has_those_with_a_rectangle() -> None:
    known = channels(a="test:a", b="test:b", c="test:c")
    regions = [
        {"user": u, "x": x, "y": 0, "width": 64, "height": 64} for u, x in (("c", 0), ("a", 64))
    ]
    both = wanted("a", "b", layout="customized", regions=regions)
    assert [o.user for o in origins(known, both, FIELDS)] == ["a"]
    nobody_named = wanted(layout="customized", regions=regions)
    assert [o.user for o in origins(known, nobody_named, FIELDS)] == ["a", "c"]


# -- templates --------------------------------------------------------------------------


def test_what_a_client_sends_is_one_quoted_piece_of_an_address() -> None:
    url = found("rtmp://m.example/live/{channel}-{user}?t={access_token}&u={workerUid}", "a b/c")
    assert url == "rtmp://m.example/live/room-a%20b%2Fc?t=t%2F%2B%20k%3F%26%23&u=42"
    assert found("https://m.example/{app_id}/{task_id}.m3u8") == "https://m.example/app1/1ab.m3u8"


@pytest.mark.parametrize("value", ["a@evil.example", "a:b@c", "x/../..", "?x=", "#", "é", "{user}"])
def test_no_field_changes_where_an_address_leads(value: str) -> None:
    url = found("rtsp://{user}.m.example/{channel}", "u", value)
    assert url.startswith("rtsp://u.m.example/")
    assert url.count("/") == 3
    assert not set("@?#{}") & set(url)


def test_a_file_is_one_name_in_its_folder() -> None:
    assert found("file:/media/{channel}/{user}.mp4", "Anna B.", "x") == "file:/media/x/Anna B..mp4"


@pytest.mark.parametrize("value", [".", "..", "a/b", "/etc", "../x", "a\x85b"])
@pytest.mark.parametrize("field", ["app_id", "access_token", "workerUid"])
def test_a_file_is_never_elsewhere(field: str, value: str) -> None:
    with pytest.raises(Rejected, match=rf"^{field}: it cannot be part") as refused:
        found("file:/media/{" + field + "}/x", **{field: value})
    assert refused.value.code == "invalid"


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
names |= st.sampled_from(["..", ".", "{user}", "{channel}", "{access_token}", ".{user}", "a"])


@given(names, names, names)
def test_whatever_is_filled_in_a_file_stays_in_its_folder(u: str, c: str, t: str) -> None:
    try:
        url = found("file:/media/{channel}/{access_token}/{user}/x.mp4", u, c, access_token=t)
    except Rejected:
        return
    assert url.removeprefix("file:").split("/") == ["", "media", c, t, u, "x.mp4"]
    assert not {".", ".."} & {c, t, u}


# -- arguments -------------------------------------------------------------------------


def arguments(url: str, **more: Any) -> list[str]:
    origin = Origin("a", url, more.pop("listen", False), more.pop("loop", False), ("-an",))
    tail = more.pop("tail", None)
    return feed_arguments(
        origin, SHAPE, [Path("/run/v")], Path("/run/a"), picture=True, audible=True, tail=tail
    )


def before_input(found: list[str]) -> list[str]:
    """The options of the input, and its address."""
    at = found.index("-i")
    return found[found.index("-stats_period") + 2 : at + 2]


@pytest.mark.parametrize(
    ("url", "more", "options"),
    [
        ("rtsp://h/x", {}, ["-rtsp_transport", "tcp", "-timeout", "10000000", "-an", "-i"]),
        ("rtsp://h/x", {"listen": True}, ["-rtsp_flags", "listen", "-timeout", "10000000", "-an"]),
        ("rtmp://h/x", {}, ["-rw_timeout", "10000000", "-an", "-i", "rtmp://h/x"]),
        ("rtmp://h/x", {"listen": True}, ["-listen", "1", "-rw_timeout", "10000000", "-an"]),
        ("srt://h:9", {}, ["-an", "-i", "srt://h:9?mode=caller&timeout=10000000"]),
        ("srt://h:9?x=y", {"listen": True}, ["-an", "-i", "srt://h:9?x=y&mode=listener&timeout="]),
        ("https://h/x.m3u8", {}, ["-rw_timeout", "10000000", "-an", "-i", "https://h/x.m3u8"]),
        ("file:/m/x.mp4", {}, ["-re", "-an", "-i", "file:/m/x.mp4"]),
        ("file:/m/x.mp4", {"loop": True}, ["-re", "-stream_loop", "-1", "-an", "-i"]),
        (
            "gateway:gw01",
            {"tail": (Path("/r/call.wav"), ["-f", "s16le"])},
            ["-f", "s16le", "-follow", "1", "-re", "-i", "file:/r/call.wav"],
        ),
    ],
)
def test_each_kind_of_source(url: str, more: dict[str, Any], options: list[str]) -> None:
    said = before_input(arguments(url, **more))
    assert " ".join(options) in " ".join(said)


def test_only_a_file_that_is_not_repeated_is_ever_over() -> None:
    assert Origin("a", "file:/x", False, False, ()).ends
    assert not Origin("a", "file:/x", False, True, ()).ends
    assert not Origin("a", "rtsp://h/x", False, False, ()).ends


def test_what_a_source_does_not_have_is_not_asked_for() -> None:
    origin = Origin("a", "rtsp://h/x", False, False, ())
    run = ([Path("/run/v")], Path("/run/a"))
    silent = feed_arguments(origin, SHAPE, *run, picture=True, audible=False)
    assert "0:a:0" not in silent
    blind = feed_arguments(origin, SHAPE, [], Path("/run/a"), picture=False, audible=True)
    assert "-filter_complex" not in blind


TEXTS = ["Anna", "a'b", "a:b", "a,b;c[d]", "100%{x}", "\\", "%{eif:1}", "é漢", "a=b", "''''"]


@pytest.mark.parametrize("text", TEXTS)
async def test_any_name_can_be_written_on_a_card(tmp_path: Path, text: str) -> None:
    """By ffmpeg itself, which is the judge of how it is quoted."""
    found, paths = sources.card_arguments(text, [(64, 36), (32, 18)], tmp_path, "gone-0")
    process = Process(Command(found), registry())
    with trio.fail_after(30):
        ended = await process.run()
    assert ended.status == 0, process.last_lines()
    assert [path.stat().st_size for path in paths] == [64 * 36 * 3 // 2, 32 * 18 * 3 // 2]
