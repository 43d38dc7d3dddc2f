"""YAML with positions, and what `${…}` stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.source import ConfigError, dotted, parse
from tests.config.files import loaded, problems


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "log: {level: info}\nstate: a\nlog: {level: debug}\n") == [
        "3: log: is there twice"
    ]


def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "state: a\nserver: {bind: [1\nlog: x\n")
    assert found.startswith(("3: ", "4: "))
    (found,) = problems(tmp_path, "state: a\n\tlog: b\n")
    assert found.startswith("2: ")


def test_a_control_character_is_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        loaded(tmp_path, "state: a\0b\n")


def test_two_documents_are_not_one(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "state: a\n---\nstate: b\n")
    assert found.startswith("2: ")


def test_a_tag_that_would_make_an_object_is_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "state: !!python/object/apply:os.system [id]\n")
    assert found.startswith("1: ")


def test_an_alias_that_contains_itself_is_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "gateways: &a\n  profiles: {x: *a}\n")
    assert "an alias that contains itself" in found


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = problems(tmp_path, "\n".join(lines))
    assert "too many values" in found


def test_every_value_knows_its_line() -> None:
    document = parse("a:\n  b:\n    - x\n    - y: 1\n", "f")
    assert document.position(("a", "b", 0)) == "f:3"
    assert document.position(("a", "b", 1, "y")) == "f:4"
    # What is not there is where it would be.
    assert document.position(("a", "b", 7, "z")) == "f:2"
    assert document.position(("elsewhere",)) == "f:1"


def test_a_path_reads_as_one_would_write_it() -> None:
    assert dotted(("gateways", "profiles", "x", "command", 0)) == "gateways.profiles.x.command[0]"
    assert dotted(()) == ""


# -- ${…} ---------------------------------------------------------------------------


def test_the_environment_is_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY", "a-token-of-enough-letters")
    config = loaded(tmp_path, "auth: {tokens: [{name: p, token: '${PROXY}', scopes: ['*']}]}")
    assert config.auth.tokens[0].token == "a-token-of-enough-letters"


def test_a_reference_may_stand_in_a_longer_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "north")
    assert loaded(tmp_path, "state: /srv/${PLACE}/${ROOM:-hall}").state == "/srv/north/hall"


def test_a_default_is_for_what_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("ABSENT", raising=False)
    assert loaded(tmp_path, "state: x${ABSENT:-y}").state == "xy"
    assert loaded(tmp_path, "state: x${ABSENT:-}").state == "x"
    assert loaded(tmp_path, "state: x${EMPTY:-y}").state == "x"


def test_a_variable_that_is_not_set_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    assert problems(tmp_path, "\nserver:\n  bind:\n    - ${ABSENT}\n") == [
        "4: server.bind[0]: the environment variable ABSENT is not set"
    ]


def test_a_file_is_put_in_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file-of-mine\n")
    config = loaded(tmp_path, "auth: {tokens: [{name: p, token: '${file:secret}', scopes: ['*']}]}")
    assert config.auth.tokens[0].token == "from-a-file-of-mine"


def test_a_file_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path, "\nstate: ${file:gone}\n") == [
        "2: state: file:gone: No such file or directory"
    ]
    (tmp_path / "latin").write_bytes(b"\xff")
    assert problems(tmp_path, "state: ${file:latin}\n") == ["1: state: file:latin: it is no UTF-8"]


def test_two_dollars_stand_for_one(tmp_path: Path) -> None:
    assert loaded(tmp_path, "state: a$${HOME}b$c").state == "a${HOME}b$c"


def test_what_came_out_of_a_reference_is_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTER", "${INNER}")
    assert loaded(tmp_path, "state: ${OUTER}").state == "${INNER}"


def test_keys_are_not_interpolated(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "'${HOME}': 1")
    assert found.startswith("1: ${HOME}: unknown key")
