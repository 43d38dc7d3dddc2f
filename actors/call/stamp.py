"""Timestamps of clients: RFC 3339 with microseconds, and nothing else. Pure."""

from __future__ import annotations

import datetime
import re

# Real dates and times only are left to `datetime`.
PATTERN = r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d\.\d{6}([Zz]|[+-]\d\d:[0-5]\d)$(?!\n)"

_USUAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z", re.ASCII)
_WHOLE = re.compile(PATTERN, re.ASCII)
_UTC = datetime.UTC
_parse = datetime.datetime.fromisoformat


def moment(text: str) -> datetime.datetime:
    """What it stands for, in UTC. Raises ValueError."""
    if _WHOLE.match(text) is None or not "1970" <= text[:4] <= "2199":
        # Near the ends of the calendar nothing can be counted on from them.
        raise ValueError(
            "expected RFC 3339 with microseconds, from 1970 to 2199,"
            " like 2026-01-01T08:00:01.000000Z"
        )
    try:
        return datetime.datetime.fromisoformat(text.upper()).astimezone(_UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no such date or time: {error}") from error


def shown(when: datetime.datetime) -> str:
    """As they are kept and shown: UTC, so that texts are in the order of times."""
    # Not `strftime`: it does not pad years before 1000.
    return when.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def normal(text: str) -> str:
    """The same moment as it is kept. Raises ValueError."""
    if _USUAL.match(text) is None or not "1970" <= text[:4] <= "2199":
        return shown(moment(text))
    try:
        # It is as it is kept already, if it is a real date.
        _parse(text)
    except ValueError as error:
        raise ValueError(f"no such date or time: {error}") from error
    return text


def milliseconds(first: str, second: str) -> int:
    """From one kept timestamp to another."""
    parse = datetime.datetime.fromisoformat
    return round((parse(second) - parse(first)).total_seconds() * 1000)
