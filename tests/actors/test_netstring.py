"""Netstrings: any frames, cut anywhere, come out whole; what is no netstring is refused at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.netstring import MAX_FRAME, Decoder, FrameError, encode

frames = st.lists(st.binary(max_size=200), max_size=12)


@given(frames, st.data())
def test_frames_survive_any_split(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    decoder, got = Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:end])
    assert got == sent
    assert not decoder.partial


@given(frames)
def test_a_byte_at_a_time(sent: list[bytes]) -> None:
    decoder, got = Decoder(), []
    for byte in b"".join(map(encode, sent)):
        got += decoder.feed(bytes([byte]))
    assert got == sent


@given(st.binary(max_size=400))
def test_rubbish_is_refused_or_waited_for_and_never_grows(rubbish: bytes) -> None:
    decoder = Decoder()
    try:
        for frame in decoder.feed(rubbish):
            assert encode(frame) in rubbish or b"0" in rubbish  # leading zeroes are tolerated
    except FrameError:
        return
    assert len(rubbish) == 0 or decoder.partial or rubbish.endswith(b",")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"hello", "expected a length"),
        (b"-1:x,", "expected a length"),
        (b" 3:abc,", "expected a length"),
        (b":abc,", "without a length"),
        (b"3:abcd", "comma"),
        (b"0:x", "comma"),
        (b"\xb2:ab,", "expected a length"),  # a superscript two is no digit here
        (b"%d:" % (MAX_FRAME + 1), "a frame of"),
        (b"1073741824:{", "a length without an end"),
        (b"9" * 1000, "a length without an end"),
    ],
)
def test_what_is_no_netstring(data: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        Decoder().feed(data)


def test_a_gigabyte_is_refused_before_it_comes() -> None:
    decoder = Decoder()
    with pytest.raises(FrameError):
        for byte in b"1073741824:":
            decoder.feed(bytes([byte]))


def test_the_largest_frame_is_taken() -> None:
    payload = b"x" * MAX_FRAME
    assert Decoder().feed(encode(payload)) == [payload]


def test_frames_before_a_broken_one_are_lost_with_it() -> None:
    """The stream is of no use from there on; whoever waits asks again on a new one."""
    with pytest.raises(FrameError):
        Decoder().feed(encode(b"good") + b"rubbish")


def test_partial_tells_of_a_frame_that_has_begun() -> None:
    decoder = Decoder()
    partial = [decoder.partial]
    for piece in (b"5:he", b"llo,", b"0:,", b"1"):
        decoder.feed(piece)
        partial.append(decoder.partial)
    assert partial == [False, True, False, False, True]
