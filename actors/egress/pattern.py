"""Names of files from a client's pattern: they never leave the folder of their task."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

MAX_PATTERN = 200
# Of one part of a name, in bytes: with what is put before and behind it, it stays below the 255
# that file systems take.
MAX_NAME = 120
MAX_USER = 80
_FIELD = re.compile(r"\{(\w*)\}")
FIELDS = ("date", "time", "region", "channel", "task_id", "user")
_UNUSABLE = re.compile(r"[^\w.\- ]+")


class PatternError(ValueError):
    """A pattern that cannot be a file's name; says why."""


def check(pattern: str) -> None:
    """Raise PatternError for what no file of ours may be called (contracts/DECISIONS.md)."""
    if not pattern or len(pattern) > MAX_PATTERN:
        raise PatternError(f"expected 1 to {MAX_PATTERN} characters")
    if not pattern.isprintable():
        raise PatternError("expected printable characters only")
    if "\\" in pattern or pattern.startswith("/"):
        raise PatternError("expected a name inside the recordings folder, without `\\`")
    for name in _FIELD.findall(pattern):
        if name not in FIELDS:
            raise PatternError(f"unknown field {{{name}}}; known: {', '.join(FIELDS)}")
    if "{" in _FIELD.sub("", pattern) or "}" in _FIELD.sub("", pattern):
        raise PatternError("a brace that is no field")
    for part in pattern.split("/"):
        if part in ("", ".", ".."):
            raise PatternError("expected a name inside the recordings folder")
        if part.startswith((".", "-")):
            raise PatternError("a name cannot begin with `.` or `-`")


def expand(pattern: str, values: Mapping[str, str], now: datetime.datetime) -> str:
    """The name without its ending. What a field brings cannot make a folder or leave one."""
    known = {
        "date": now.strftime("%Y-%m-%d"),
        "time": now.strftime("%H-%M-%S"),
        **{name: clean(value) for name, value in values.items()},
    }
    parts = _FIELD.sub(lambda m: known.get(m[1], ""), pattern).split("/")
    return "/".join(shorten(clean(part), MAX_NAME) for part in parts)


def shorten(text: str, most: int) -> str:
    """The beginning of a text, at most so many bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def clean(text: str) -> str:
    """The text as a part of a file's name."""
    return _UNUSABLE.sub("_", text).lstrip(".-").strip() or "_"
