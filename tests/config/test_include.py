"""`runtime.include`: files beside the configuration that add to its runtime section."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.call.resolve import Resolver
from tests.config.files import loaded, problems


def write(folder: Path, name: str, text: str) -> Path:
    """A file beside the configuration."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def tenant(name: str) -> str:
    return f"tenants:\n  {name}: {{name: {name.title()}}}\n"


GLOB = "runtime: {include: 'runtime.d/*.yaml'}\n"


def test_all_files_that_a_pattern_matches_are_added(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, f"runtime.d/{name}.yaml", tenant(name))
    write(tmp_path, "runtime.d/notes.txt", "not: read\n")
    (tmp_path / "runtime.d" / "folder.yaml").mkdir()
    assert set(loaded(tmp_path, GLOB).runtime.tenants) == {"demo", "one", "two"}


def test_several_patterns_and_whole_paths_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", tenant("one"))
    there = write(tmp_path, "elsewhere/b.yaml", tenant("two"))
    text = f"runtime: {{include: [a.yaml, '{there.parent}/*.yaml']}}\n"
    assert set(loaded(tmp_path, text).runtime.tenants) == {"demo", "one", "two"}


def test_a_pattern_may_match_nothing(tmp_path: Path) -> None:
    assert set(loaded(tmp_path, GLOB).runtime.tenants) == {"demo"}


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    found = problems(tmp_path, "runtime:\n  include: [a.yaml, b.yaml]\n")
    assert found == [
        "2: runtime.include: 'a.yaml': there is no such file",
        "2: runtime.include: 'b.yaml': there is no such file",
    ]


@pytest.mark.parametrize("pattern", [".", "/", ""])
def test_a_pattern_without_a_name_is_refused(tmp_path: Path, pattern: str) -> None:
    (found,) = problems(tmp_path, f"runtime:\n  include: ['{pattern}']\n")
    assert found == (
        f"2: runtime.include: {pattern!r}: expected the name of a file, or a pattern of names"
    )


def test_what_is_no_text_is_no_pattern(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "runtime:\n  include: [5]\n")
    assert found.startswith("2: runtime.include[0]: expected a text")


def test_what_is_in_two_files_names_both(tmp_path: Path) -> None:
    write(tmp_path, "runtime.d/one.yaml", "# first\n" + tenant("same"))
    write(tmp_path, "runtime.d/two.yaml", tenant("other") + "  same: {name: Again}\n")
    (found,) = problems(tmp_path, GLOB)
    assert found == "runtime.d/two.yaml:3: runtime.tenants.same: is also in runtime.d/one.yaml:3"


def test_what_is_in_the_configuration_too_names_both(tmp_path: Path) -> None:
    file = write(tmp_path, "runtime.d/one.yaml", tenant("same") + tenant("x").partition("\n")[2])
    (found,) = problems(tmp_path, GLOB.rstrip("}\n") + ",\n  tenants: {same: {name: Same}}}\n")
    assert found == (
        f"runtime.d/{file.name}:2: runtime.tenants.same: "
        f"is also in {tmp_path / 'switchboard.yaml'}:2"
    )


def test_one_number_in_two_files_names_both(tmp_path: Path) -> None:
    for name in ("one", "two"):
        numbers = f"phone_numbers:\n  {name}: {{number: '+91 80 1234 5678', tenant: demo}}\n"
        write(tmp_path, f"runtime.d/{name}.yaml", numbers)
    (found,) = problems(tmp_path, GLOB)
    assert found == (
        "runtime.d/two.yaml:2: runtime.phone_numbers.two.number: +918012345678 is also "
        "runtime.phone_numbers.one (runtime.d/one.yaml:2)"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tenant:\n  a: {name: A}\n", "1: runtime.tenant: unknown key; known in an included file:"),
        ("runtime: {}\n", "1: runtime.runtime: unknown key; known in an included file: tenants,"),
        ("include: more.yaml\n", "1: runtime.include: unknown key; known in an included file:"),
        ("tenants: [a]\n", "1: runtime.tenants: expected a mapping by id"),
        ("tenants:\n  a: {nam: A}\n", "2: runtime.tenants.a.nam: unknown key; did you mean"),
        ("tenants:\n  a: 5\n", "2: runtime.tenants.a: expected a mapping"),
        ("- a\n", "1: expected a mapping of sections"),
        ("tenants: {a: {name: A}\n", "2: "),
        ("tenants:\n  a: {name: A}\n  a: {name: B}\n", "3: tenants.a: is there twice"),
        ("tenants:\n  a: {name: '${NOT_THERE}'}\n", "2: runtime.tenants.a.name: the environment"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(
    tmp_path: Path, text: str, told: str
) -> None:
    write(tmp_path, "runtime.d/one.yaml", text)
    found = problems(tmp_path, GLOB)
    assert any(line.startswith(f"runtime.d/one.yaml:{told}") for line in found), found


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "runtime.d").mkdir()
    (tmp_path / "runtime.d" / "one.yaml").write_bytes(b"\xff\xfe")
    (found,) = problems(tmp_path, GLOB)
    assert found.startswith("runtime.d/one.yaml: cannot be read: ")


def test_secrets_of_a_file_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3kr1t\n")
    text = (
        "integrations:\n"
        "  crm: {tenant: demo, endpoint: 'http://c', auth: {token: '${file:token}'}}\n"
    )
    write(tmp_path, "runtime.d/one.yaml", text)
    assert loaded(tmp_path, GLOB).runtime.integrations["crm"].auth.token == "s3kr1t"


def test_twenty_thousand_numbers_in_two_files_are_loaded_and_found(tmp_path: Path) -> None:
    each = 10_000
    for file in range(2):
        lines = ["phone_numbers:"]
        for i in range(file * each, (file + 1) * each):
            lines.append(f"  n{i}: {{number: '+9180{10_000_000 + i}', tenant: demo, agent: demo}}")
        write(tmp_path, f"runtime.d/{file}.yaml", "\n".join(lines))
    config = loaded(tmp_path, GLOB)
    assert len(config.runtime.phone_numbers) == 2 * each + 1
    resolver = Resolver(lambda: config.runtime)
    for i in (0, each - 1, each, 2 * each - 1):
        answer = resolver.resolve(f"+9180{10_000_000 + i}", {})
        assert answer["phone_number"]["id"] == f"n{i}"
