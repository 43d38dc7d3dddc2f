"""From files to a configuration: merging, types, and errors that say where."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.load import FILE_NAME, find, load, state_folder
from config.source import ConfigError
from tests.config.files import loaded, problems

# -- which file -------------------------------------------------------------------


def test_a_file_that_is_named_is_used_whether_or_not_it_is_there(tmp_path: Path) -> None:
    assert find(tmp_path / "nothing.yaml") == tmp_path / "nothing.yaml"


def test_switchboard_yaml_here_is_used_else_the_defaults_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(None) is None
    (tmp_path / FILE_NAME).write_text("log: {level: debug}\n")
    assert find(None) == Path(FILE_NAME)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"state: \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read"):
        load(tmp_path / "latin.yaml")


# -- laid over the defaults ---------------------------------------------------------


def test_an_empty_file_is_a_good_file(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == load(None)
    assert loaded(tmp_path, "# nothing but a comment\n") == load(None)


def test_a_file_with_one_key_changes_just_that(tmp_path: Path) -> None:
    config = loaded(tmp_path, "limits: {body: 5000}\n")
    assert config.limits.body == 5000
    assert config.limits.header == load(None).limits.header
    assert config.gateways == load(None).gateways


def test_mappings_merge_to_any_depth(tmp_path: Path) -> None:
    config = loaded(tmp_path, "gateways: {profiles: {baresip: {stop: {grace: 9}}}}\n")
    before = load(None).gateways.profiles
    assert config.gateways.profiles["baresip"].stop.grace == 9
    assert config.gateways.profiles["baresip"].command == before["baresip"].command
    assert config.gateways.profiles["recording"] == before["recording"]


def test_lists_replace(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'server: {bind: ["127.0.0.1:1", "[::1]:2"]}\n')
    assert config.server.bind == ["127.0.0.1:1", "[::1]:2"]


def test_null_takes_a_mapping_away(tmp_path: Path) -> None:
    config = loaded(tmp_path, "gateways: {profiles: {baresip: null, script: ~}}\n")
    assert set(config.gateways.profiles) == {"recording", "streaming"}


def test_null_for_what_must_be_there_is_said(tmp_path: Path) -> None:
    assert problems(tmp_path, "\nlimits: null\n") == ["2: 'limits' is missing"]
    assert problems(tmp_path, "limits:\n  body: null\n") == [
        "2: limits.body: expected a whole number, got: nothing"
    ]


def test_null_where_nothing_is_meant_stays(tmp_path: Path) -> None:
    assert loaded(tmp_path, "server: {tls: null}\n").server.tls is None


def test_merge_keys_and_anchors_work(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
gateways:
  profiles:
    one: &one {command: [sleep, "9"], ready: {when: running}}
    two: {<<: *one, description: the other}
""",
    )
    profiles = config.gateways.profiles
    assert profiles["two"].command == profiles["one"].command == ["sleep", "9"]
    assert profiles["two"].description == "the other"


# -- what is wrong, and where --------------------------------------------------------


def test_an_unknown_key_is_named_with_its_line_path_and_the_nearest_name(tmp_path: Path) -> None:
    assert problems(tmp_path, "\nlimits:\n  bdy: 1\n") == [
        "3: limits.bdy: unknown key; did you mean 'body'?"
    ]


def test_an_unknown_key_that_is_like_none_gets_the_known_ones(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "log:\n  xyzzy: 1\n")
    assert found == "2: log.xyzzy: unknown key; known: level"


def test_the_state_folder_can_be_known_without_the_secrets_of_other_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    monkeypatch.setenv("PLACE", "/srv/here")
    file = tmp_path / "own.yaml"
    file.write_text("state: ${PLACE}\nauth: {tokens: [{token: '${ABSENT}'}]}\nserver: 7\n")
    assert state_folder(file) == Path("/srv/here")
    file.write_text("state: ${ABSENT}\nauth: {tokens: [{token: '${ABSENT}'}]}\n")
    with pytest.raises(ConfigError) as refused:
        state_folder(file)
    assert [str(p) for p in refused.value.problems] == [
        f"{file}:1: state: the environment variable ABSENT is not set"
    ]
    assert state_folder(None) == Path("var")


def test_a_misspelt_state_folder_is_not_taken_for_the_default(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("stat: /srv/here\n")
    with pytest.raises(ConfigError, match="did you mean 'state'"):
        state_folder(file)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """limits:
  body: many
  heder: 3
servr: {}
log: {level: loud}
gateways:
  profiles:
    mine:
      command: sleep 5
      ready: {when: runing}
""",
    )
    assert found == [
        "2: limits.body: expected a whole number, got: 'many'",
        "3: limits.heder: unknown key; did you mean 'header'?",
        "5: log.level: expected one of debug, info, warning, error, got: 'loud'",
        "9: gateways.profiles.mine.command: expected a list, got: 'sleep 5'",
        (
            "10: gateways.profiles.mine.ready.when: expected one of control, line, result, running,"
            " got: 'runing'; did you mean 'running'?"
        ),
        "4: servr: unknown key; did you mean 'server'?",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits: {body: 1.5}", "limits.body: expected a whole number, got: 1.5"),
        ("limits: {body: true}", "limits.body: expected a whole number, got: True"),
        ("limits: {read_timeout: soon}", "limits.read_timeout: expected a number, got: 'soon'"),
        (
            "limits: {rate_limit_loopback: 1}",
            "limits.rate_limit_loopback: expected true or false, got: 1",
        ),
        ("state: 5", "state: expected a text, got: 5"),
        ("limits: []", "limits: expected a mapping, got: []"),
        ("server: {bind: 127.0.0.1:80}", "server.bind: expected a list, got: '127.0.0.1:80'"),
        ("server: {bind: [80]}", "server.bind[0]: expected a text, got: 80"),
        (
            "server: {tls: {certificate: a}}",
            "server.tls: 'key' is missing",
        ),
        (
            "gateways: {profiles: {x: {ready: {when: running}, env: {A: 1}}}}",
            "gateways.profiles.x.env.A: expected a text, got: 1",
        ),
        ("gateways: {profiles: []}", "gateways.profiles: expected a mapping, got: []"),
    ],
)
def test_a_wrong_type_says_what_was_expected(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [f"1: {problem}"]


def test_a_value_that_is_long_is_shown_short(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"limits: {{body: {'x' * 500}}}")
    assert len(found) < 130


def test_what_the_model_has_no_default_for_must_be_there(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "gateways: {profiles: {mine: {command: [a]}}}")
    assert found == "1: gateways.profiles.mine: 'ready' is missing"


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path, "- one\n- two\n") == ["1: expected a mapping of sections"]
