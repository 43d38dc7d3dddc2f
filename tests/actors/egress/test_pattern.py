"""Names of files from what clients write: usable, bounded, and never outside their folder."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.egress import pattern
from actors.egress.pattern import PatternError
from actors.egress.request import Wanted
from actors.egress.tracks import Folder, tracks

MOMENT = datetime.datetime(2026, 1, 31, 23, 59, 58, tzinfo=datetime.UTC)
VALUES = {"region": "local", "channel": "egress_test", "task_id": "1ab", "user": "user1"}
# What one component of a path may have on the file systems that we run on, in bytes.
NAME_MAX = 255


def expand(text: str, **values: str) -> str:
    pattern.check(text)
    return pattern.expand(text, {**VALUES, **values}, MOMENT)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("file_output", "file_output"),
        ("{date}", "2026-01-31"),
        ("{time}", "23-59-58"),
        ("{region}", "local"),
        ("{channel}", "egress_test"),
        ("{task_id}", "1ab"),
        ("{user}", "user1"),
        (
            "{date}_{time}_{region}_{channel}_{task_id}_{user}",
            "2026-01-31_23-59-58_local_egress_test_1ab_user1",
        ),
        ("{channel}/{date}/{user}", "egress_test/2026-01-31/user1"),
        ("Büro – Übung", "Büro _ Übung"),
        ("会議", "会議"),
        ("a:b*c?d|e%06d", "a_b_c_d_e_06d"),
    ],
)
def test_a_pattern_and_its_name(text: str, name: str) -> None:
    assert expand(text) == name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "1 to 200 characters"),
        ("x" * 201, "1 to 200 characters"),
        ("x" * 5000, "1 to 200 characters"),
        ("..", "inside the recordings folder"),
        ("../x", "inside the recordings folder"),
        ("a/../../x", "inside the recordings folder"),
        ("a/./x", "inside the recordings folder"),
        ("a//x", "inside the recordings folder"),
        ("a/", "inside the recordings folder"),
        ("/etc/passwd", "inside the recordings folder"),
        ("\\\\server\\share", "inside the recordings folder"),
        ("..\\x", "inside the recordings folder"),
        ("a\0b", "printable"),
        ("a\nb", "printable"),
        ("a\x7fb", "printable"),
        ("\u202etxt.exe", "printable"),
        ("{host}", "unknown field {host}; known: date, time, region, channel, task_id, user"),
        ("{}", "unknown field {}"),
        ("{user", "a brace"),
        ("user}", "a brace"),
        ("{{user}}", "a brace"),
        ("{user.__class__}", "a brace"),
        (".hidden", "cannot begin"),
        ("-rf", "cannot begin"),
        ("a/-rf", "cannot begin"),
        (".{user}", "cannot begin"),
    ],
)
def test_what_no_file_may_be_called(text: str, why: str) -> None:
    with pytest.raises(PatternError) as refused:
        pattern.check(text)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "value", ["..", ".", "", "/", "a/b", "../../x", "\0", "\n", "-rf", "...", " ", "a\\b", "{user}"]
)
@pytest.mark.parametrize("field", sorted(VALUES))
def test_what_a_field_brings_makes_no_folder_and_leaves_none(field: str, value: str) -> None:
    name = expand("{" + field + "}", **{field: value})
    assert "/" not in name
    assert name not in ("", ".", "..")
    assert not name.startswith((".", "-"))
    assert name.isprintable()


texts = st.text(max_size=220) | st.text("abc{}./\\- é漢\0", max_size=40)
fields = st.sampled_from([*("{" + f + "}" for f in pattern.FIELDS), "/", "a", "漢", "é", "."])
patterns = texts | st.lists(fields, min_size=1, max_size=60).map("".join)
people = st.text(min_size=1, max_size=64)


@given(patterns, st.lists(people, min_size=1, max_size=4, unique=True), st.text(max_size=128))
def test_a_name_never_leaves_the_folder(text: str, users: list[str], channel: str) -> None:
    """Whatever passes the check, with whatever is filled in; for one file, and for one each."""
    try:
        pattern.check(text)
    except PatternError:
        return
    folder = Folder(Path("/recordings/egress/1ab"))
    values = {"region": "local", "channel": channel, "task_id": "1ab"}
    for apart in (False, True):
        wanted = Wanted(filename_pattern=text, individual=apart)
        found = tracks(wanted, users, values, "2026-01-31T23:59:58.000001Z")
        assert len({t.name for t in found}) == len(found) == (len(users) if apart else 1)
        for track in found:
            place = folder.part(track, 1)
            assert Path(os.path.normpath(place)) == place
            assert place.is_relative_to(folder.files)
            # With all that is put behind a name while it is written.
            longest = (f"{part}-000001.jpg.segments" for part in track.name.split("/"))
            assert all(len(os.fsencode(part)) <= NAME_MAX for part in longest), track.name


@pytest.mark.parametrize("character", ["x", "é", "漢", "𝒳"])
@pytest.mark.parametrize("apart", [False, True])
def test_the_longest_name_can_be_made(tmp_path: Path, character: str, apart: bool) -> None:
    """In any alphabet: a file system counts bytes."""
    wanted = Wanted(filename_pattern=character * pattern.MAX_PATTERN, individual=apart)
    people = [character * 63 + end for end in "ab"]
    found = tracks(wanted, people, {}, "2026-01-31T23:59:58.000001Z")
    assert len({t.name for t in found}) == len(found)
    for track in found:
        Folder(tmp_path).part(track, 1).mkdir(parents=True)
