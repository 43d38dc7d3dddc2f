"""What a client may ask for: the contract's examples as they stand, and each refusal by field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.egress.request import (
    MAX_USERS,
    Audio,
    Kind,
    Region,
    Video,
    Wanted,
    hide_address,
    shown,
    understand,
)
from supervisor.errors import Rejected
from tests.actors.egress.examples import NATIVE, WEB, snapshot

BASE: dict[str, Any] = {"channel": "egress_test", "users": ["user1", "user2"]}


# -- what is understood ---------------------------------------------------------------


def test_the_native_example_as_it_stands() -> None:
    kind, wanted = understand(NATIVE["cmd"], NATIVE["payload"])
    assert kind is Kind.RECORD
    assert wanted == Wanted(
        layout="flat",
        channel="egress_test",
        access_token="007eJxt9VMp+//+i9SOE",
        users=["user1", "user2"],
        filename_pattern="file_output",
        format="hls",
        video=Video(1280, 720, 30, 1000),
        audio=Audio(48000, 2, 128),
    )
    assert wanted.formats == ["hls"]


def test_the_web_example_as_it_stands() -> None:
    kind, wanted = understand(WEB["cmd"], WEB["payload"])
    assert kind is Kind.PAGE
    assert wanted.page == "http://your_freestyle_canvas.good.example"
    assert not wanted.web_gl


def test_a_page_may_be_named_in_either_place() -> None:
    payload = {"layout": "freestyle", "web_recorder": {"url": "http://a.example", "x": 1}}
    assert understand("record", payload)[1].page == "http://a.example"
    both = payload | {"url": "http://b.example"}
    assert understand("record", both)[1].page == "http://b.example"


def test_what_is_left_out_has_a_default() -> None:
    kind, wanted = understand("record", {"channel": "c"})
    assert kind is Kind.RECORD
    assert (wanted.layout, wanted.formats, wanted.users) == ("flat", ["hls"], [])
    assert (wanted.video, wanted.audio) == (Video(1280, 720, 30, 1000), Audio(48000, 2, 128))


def test_a_snapshot_has_an_interval() -> None:
    kind, wanted = understand("snapshot", snapshot())
    assert kind is Kind.SNAPSHOT
    assert wanted.interval_in_ms == 1000
    page = {"layout": "freestyle", "url": "http://a.example", "interval_in_ms": 500}
    assert understand("snapshot", page)[0] is Kind.PAGE


def test_an_interval_makes_no_snapshots_of_a_recording() -> None:
    """It is a snapshot's field: a client that always sends it records as any other does."""
    assert understand("record", snapshot())[1].interval_in_ms is None


def test_several_formats_are_each_made_once() -> None:
    assert understand("record", {**BASE, "format": ["mp4", "hls", "mp4"]})[1].formats == [
        "mp4",
        "hls",
    ]
    only = {**BASE, "format": "none", "rtmp_dst": "rtmp://a.example/app/key"}
    assert understand("record", only)[1].formats == []


def test_unknown_fields_have_no_effect() -> None:
    assert (
        understand("record", {**BASE, "foo": {"bar": [1]}, "workerUid": "x"})[1]
        == understand("record", BASE)[1]
    )


def test_one_file_for_each_user_is_asked_for_in_two_ways() -> None:
    assert understand("record", {**BASE, "individual": True})[1].apart
    assert understand("record", {**BASE, "layout": "individual"})[1].apart
    assert not understand("record", BASE)[1].apart


# -- what is refused --------------------------------------------------------------------

REGION = {"user": "user1", "x": 0, "y": 0, "width": 640, "height": 360}
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("record", "layout", {"layout": "mosaic"}),
    ("record", "layout", {"layout": None}),
    ("record", "channel", {"channel": ""}),
    ("record", "channel", {"channel": 5}),
    ("record", "channel", {"channel": "x" * 129}),
    ("record", "channel", {"channel": "a\nb"}),
    ("record", "users", {"users": "user1"}),
    ("record", "users", {"users": ["user1", "user1"]}),
    ("record", "users", {"users": [""]}),
    ("record", "users", {"users": [5]}),
    ("record", "users", {"users": ["x" * 65]}),
    ("record", "users", {"users": ["a\0b"]}),
    ("record", "users", {"users": [f"u{n}" for n in range(MAX_USERS + 1)]}),
    ("record", "access_token", {"access_token": 5}),
    ("record", "access_token", {"access_token": "x" * 2049}),
    ("record", "filename_pattern", {"filename_pattern": ""}),
    ("record", "filename_pattern", {"filename_pattern": "../x"}),
    ("record", "filename_pattern", {"filename_pattern": "x" * 201}),
    ("record", "filename_pattern", {"filename_pattern": "x" * 5000}),
    ("record", "filename_pattern", {"filename_pattern": "a\0b"}),
    ("record", "filename_pattern", {"filename_pattern": "{host}"}),
    ("record", "format", {"format": "avi"}),
    ("record", "format", {"format": ["hls", "avi"]}),
    ("record", "format", {"format": []}),
    ("record", "format", {"format": "none"}),
    ("record", "format", {"format": 5}),
    ("record", "format", {"format": [5]}),
    ("record", "video", {"video": []}),
    ("record", "width", {"video": {"width": 62}}),
    ("record", "width", {"video": {"width": 3842}}),
    ("record", "width", {"video": {"width": "1280"}}),
    ("record", "height", {"video": {"height": 2162}}),
    ("record", "even", {"video": {"width": 1281}}),
    ("record", "even", {"video": {"height": 719}}),
    ("record", "frameRate", {"video": {"frameRate": 0}}),
    ("record", "frameRate", {"video": {"frameRate": 61}}),
    ("record", "frameRate", {"video": {"frameRate": 29.97}}),
    ("record", "bitrate", {"video": {"bitrate": 0}}),
    ("record", "sampleRate", {"audio": {"sampleRate": 12345}}),
    ("record", "channels", {"audio": {"channels": 3}}),
    ("record", "bitrate", {"audio": {"bitrate": 513}}),
    ("record", "url", {"layout": "freestyle"}),
    ("record", "url", {"layout": "freestyle", "url": 5}),
    ("record", "url", {"layout": "freestyle", "web_recorder": {}}),
    ("record", "webGL", {"webGL": "yes"}),
    ("record", "ready", {"ready": "never"}),
    ("record", "max_duration", {"max_duration": 0}),
    ("record", "max_duration", {"max_duration": -1}),
    ("record", "max_duration", {"max_duration": "1h"}),
    ("record", "rtmp_dst", {"rtmp_dst": 5}),
    ("record", "individual", {"individual": 1}),
    ("record", "names", {"names": "yes"}),
    ("record", "spotlight", {"layout": "spotlight", "spotlight": "nobody"}),
    ("record", "regions", {"layout": "customized"}),
    ("record", "regions", {"layout": "customized", "regions": [REGION | {"x": 641}]}),
    ("record", "regions", {"layout": "customized", "regions": [REGION | {"y": 361}]}),
    ("record", "regions", {"regions": [REGION | {"x": -2}]}),
    ("record", "regions", {"regions": [REGION | {"width": 8}]}),
    ("record", "regions", {"regions": [{}]}),
    ("record", "regions", {"layout": "customized", "regions": [REGION, REGION]}),
    ("record", "regions", {"layout": "customized", "regions": [REGION | {"user": ""}]}),
    ("snapshot", "interval_in_ms", {}),
    ("snapshot", "interval_in_ms", {"interval_in_ms": 199}),
    ("snapshot", "interval_in_ms", {"interval_in_ms": 86_400_001}),
    ("snapshot", "interval_in_ms", {"interval_in_ms": "1000"}),
    ("snapshot", "even", {"interval_in_ms": 1000, "video": {"width": 641}}),
    ("snapshot", "filename_pattern", {"interval_in_ms": 1000, "filename_pattern": "/x"}),
]


@pytest.mark.parametrize(
    ("cmd", "field", "change"), REFUSED, ids=lambda part: str(part)[:40].replace("\0", "0")
)
def test_a_refusal_names_its_field(cmd: str, field: str, change: dict[str, Any]) -> None:
    size = {"video": {"width": 1280, "height": 720}}
    with pytest.raises(Rejected, match=r"^payload") as refused:
        understand(cmd, {**BASE, **size, **change})
    assert refused.value.code == "invalid"
    assert field in refused.value.message


def test_a_channel_is_needed_where_no_page_is() -> None:
    with pytest.raises(Rejected, match=r"^payload\.channel: "):
        understand("record", {})


def test_rectangles_that_reach_the_edge_are_inside() -> None:
    edge = REGION | {"x": 640, "y": 360}
    _, wanted = understand("record", {**BASE, "layout": "customized", "regions": [edge]})
    assert wanted.regions == [Region("user1", 640, 360, 640, 360)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from([*Wanted.__struct_encode_fields__, "workerUid", "x"])


@given(st.sampled_from(["record", "snapshot"]), st.dictionaries(names, values, max_size=6))
def test_anything_is_understood_or_refused(cmd: str, payload: dict[str, Any]) -> None:
    refused = None
    try:
        understand(cmd, payload)
    except Rejected as error:
        refused = error
    assert refused is None or (refused.code, refused.message[:7]) == ("invalid", "payload")
    shown(payload)


# -- what may be seen -----------------------------------------------------------------


def test_the_example_is_shown_without_its_token() -> None:
    seen = shown(NATIVE["payload"])
    assert seen == NATIVE["payload"] | {"access_token": "***"}
    assert NATIVE["payload"]["access_token"] != "***"
    assert shown(WEB["payload"]) == WEB["payload"]


SECRET = "s3kr1t"


@pytest.mark.parametrize(
    "payload",
    [
        {"access_token": SECRET},
        {"access_token": [SECRET]},
        {"access_token": {"value": SECRET}},
        {"access_token": [[{"a": SECRET}]]},
        {"accessToken": SECRET},
        {"nested": {"deep": [{"api_key": SECRET}]}},
        {"Authorization": f"Bearer {SECRET}"},
        {"url": f"http://user:{SECRET}@a.example/x"},
        {"url": f"http://{SECRET}@a.example/x"},
        {"url": f"http://a.example/x?token={SECRET}"},
        {"url": f"http://a.example/x#{SECRET}"},
        {"url": f"HTTPS://user:{SECRET}@a.example:8443/x?y={SECRET}#{SECRET}"},
        {"url": f"http://user:{SECRET}@[::1/"},
        {"url": f"http://user:{SECRET}@a.example:port/"},
        {"url": f"see http://user:{SECRET}@a.example/"},
        {"url": f"http://a.example/http://user:{SECRET}@b.example/"},
        {"web_recorder": {"url": f"http://a.example/?k={SECRET}"}},
        {"rtmp_dst": f"rtmp://a.example/app/{SECRET}"},
        {"rtmp_dst": f"rtmp://a.example/{SECRET}"},
        {"rtmp_dst": f"rtmp://a.example/app/instance/{SECRET}"},
        {"rtmp_dst": f"rtmps://user:{SECRET}@a.example/app/{SECRET}?k={SECRET}"},
        {"rtmp_dst": f"RTMP://a.example/app/{SECRET}"},
        {"rtmp_dst": f"rtmp://a.example/app/{SECRET}/"},
        {"srt": f"srt://a.example:9000?streamid={SECRET}"},
        {"users": [f"rtmp://a.example/app/{SECRET}"]},
    ],
    ids=lambda payload: json.dumps(payload)[:60],
)
def test_what_is_shown_has_no_secret(payload: dict[str, Any]) -> None:
    assert SECRET in json.dumps(payload)
    assert SECRET not in json.dumps(shown(payload))


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("http://a.example/x/y", "http://a.example/x/y"),
        ("http://a.example:8080", "http://a.example:8080"),
        ("http://u:p@a.example:8080/x?y=z", "http://a.example:8080/x?***"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("rtmp://a.example/app/key", "rtmp://a.example/app/***"),
        ("rtmp://a.example", "rtmp://a.example"),
    ],
)
def test_an_address_keeps_what_opens_no_door(address: str, seen: str) -> None:
    assert hide_address(address) == seen
