"""Timestamps: the right ones in UTC and in order, and every shape that is not one."""

from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.call.stamp import PATTERN, milliseconds, moment, normal, shown

MINUTES = 23 * 60 + 59
# A day from either end of what there is, so that no offset leaves it.
FIRST = datetime.datetime.fromisoformat("1970-01-02")
LAST = datetime.datetime.fromisoformat("2199-12-30")

moments = st.datetimes(FIRST, LAST)
offsets = st.integers(-MINUTES, MINUTES)


def written(when: datetime.datetime, minutes: int) -> str:
    """A moment of UTC, as somebody with another clock writes it."""
    local = (when + datetime.timedelta(minutes=minutes)).isoformat(timespec="microseconds")
    hours, rest = divmod(abs(minutes), 60)
    return f"{local}{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}"


@given(moments, offsets)
def test_a_moment_comes_back_in_utc_wherever_it_was_written(
    when: datetime.datetime, minutes: int
) -> None:
    kept = normal(written(when, minutes))
    assert kept == when.isoformat(timespec="microseconds") + "Z"
    assert moment(kept).replace(tzinfo=None) == when
    assert normal(kept) == kept
    assert shown(moment(kept)) == kept


@given(moments, moments, offsets, offsets)
def test_what_is_kept_is_in_the_order_of_times(
    one: datetime.datetime, two: datetime.datetime, mine: int, yours: int
) -> None:
    first, second = normal(written(one, mine)), normal(written(two, yours))
    assert (first < second) == (one < two)
    assert (first == second) == (one == two)


@given(moments, st.integers(0, 10**9))
def test_milliseconds_are_counted(when: datetime.datetime, count: int) -> None:
    later = min(when + datetime.timedelta(milliseconds=count), LAST)
    counted = round((later - when).total_seconds() * 1000)
    first, second = shown(when), shown(later)
    assert milliseconds(first, second) == counted
    assert milliseconds(second, first) == -counted


@given(moments)
def test_small_letters_are_the_same(when: datetime.datetime) -> None:
    kept = shown(when)
    assert normal(kept.lower()) == kept


WRONG = [
    "",
    "now",
    "2026-01-01",
    "2026-01-01T08:00:01",
    "2026-01-01T08:00:01Z",
    "2026-01-01T08:00:01.0Z",
    "2026-01-01T08:00:01.000Z",
    "2026-01-01T08:00:01.00000Z",
    "2026-01-01T08:00:01.0000000Z",
    "2026-01-01T08:00:01,000000Z",
    "2026-01-01T08:00:01.000000",
    "2026-01-01 08:00:01.000000Z",
    "2026-01-01T08:00:01.000000z ",
    " 2026-01-01T08:00:01.000000Z",
    "2026-01-01T08:00:01.000000Z\n",
    "2026-01-01T08:00:01.000000ZZ",
    "2026-01-01T08:00:01.000000+0530",
    "2026-01-01T08:00:01.000000+05",
    "2026-01-01T08:00:01.000000+05:60",
    "2026-01-01T08:00:01.000000+05:75",
    "2026-01-01T08:00:01.000000+24:00",
    "2026-01-01T08:00:01.000000 05:30",
    "2026-01-01T08:00:01.000000Europe/Berlin",
    "2026-1-1T08:00:01.000000Z",
    "26-01-01T08:00:01.000000Z",
    "20260101T080001.000000Z",
    "2026-W01-4T08:00:01.000000Z",
    "2026-00-01T08:00:01.000000Z",
    "2026-13-01T08:00:01.000000Z",
    "2026-01-00T08:00:01.000000Z",
    "2026-02-29T08:00:01.000000Z",
    "2026-02-30T08:00:01.000000+01:00",
    "2026-01-01T24:00:00.000000Z",
    "2026-01-01T08:60:01.000000Z",
    "2026-01-01T08:00:60.000000Z",
    "0000-01-01T08:00:01.000000Z",
    "+2026-01-01T08:00:01.000000Z",
    "-2026-01-01T08:00:01.000000Z",
    "２０２６-01-01T08:00:01.000000Z",
    "2026-01-01T08:00:01.00000٠Z",
    "0001-01-01T00:00:00.000000+01:00",
    "9999-12-31T23:59:59.999999-01:00",
    "1767254401",
    "1767254401.000000",
]


@pytest.mark.parametrize("text", WRONG)
def test_every_other_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected RFC 3339 with microseconds|no such date"):
        normal(text)
    with pytest.raises(ValueError, match=r"expected RFC 3339 with microseconds|no such date"):
        moment(text)


@given(st.one_of(st.text(max_size=40), st.from_regex(PATTERN.replace("(?!\\n)", ""))))
def test_whatever_it_is_it_is_kept_in_one_shape_or_refused(text: str) -> None:
    try:
        kept = normal(text)
    except ValueError:
        return
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", kept, re.ASCII)
    assert moment(kept) == moment(text)
