"""Numbers that could not be waited for or counted to are refused with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.files import loaded, problems

PROFILE = """\
gateways:
  profiles:
    mine:
      command: [sleep, "1"]
      ready: {when: running}
"""


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("starting_at_once", "0", "expected a number above 0, got: 0"),
        ("starting_at_once", "-1", "expected a number above 0, got: -1"),
        ("linger", "-1", "expected a number of 0 or more, got: -1"),
        ("linger", ".nan", "expected a number of 0 or more, got: nan"),
        ("linger", ".inf", "expected a number of 0 or more, got: inf"),
    ],
)
def test_numbers_of_the_fleet(tmp_path: Path, key: str, value: str, told: str) -> None:
    found = problems(tmp_path, f"gateways:\n  {key}: {value}\n")
    assert found == [f"2: gateways.{key}: {told}"]


@pytest.mark.parametrize(
    ("line", "at", "told"),
    [
        ("watch: {every: 0}", "watch.every", "expected a number above 0, got: 0"),
        ("watch: {every: .nan}", "watch.every", "expected a number above 0, got: nan"),
        ("watch: {timeout: .inf}", "watch.timeout", "expected a number above 0, got: inf"),
        ("watch: {misses: 0}", "watch.misses", "expected a number above 0, got: 0"),
        ("stop: {grace: -1}", "stop.grace", "expected a number of 0 or more, got: -1"),
        ("stop: {grace: .inf}", "stop.grace", "expected a number of 0 or more, got: inf"),
        ("restart: {backoff_first: 0}", "restart.backoff_first", "above 0, got: 0"),
        ("restart: {backoff_cap: .nan}", "restart.backoff_cap", "above 0, got: nan"),
        ("limits: {instances: 0}", "limits.instances", "expected a number above 0, got: 0"),
        ("limits: {memory_mb: -1}", "limits.memory_mb", "of 0 or more, got: -1"),
    ],
)
def test_numbers_of_a_profile(tmp_path: Path, line: str, at: str, told: str) -> None:
    (found,) = problems(tmp_path, f"{PROFILE}      {line}\n")
    assert found.startswith(f"6: gateways.profiles.mine.{at}: ")
    assert found.endswith(told)


@pytest.mark.parametrize("when", ["control", "line", "result", "running"])
def test_a_pattern_is_looked_at_whether_or_not_it_is_used(tmp_path: Path, when: str) -> None:
    text = PROFILE.replace("{when: running}", f"{{when: {when}, pattern: '('}}")
    found = problems(tmp_path, text + "      control: ctrl_tcp\n")
    assert len(found) == 1
    assert found[0].startswith("5: gateways.profiles.mine.ready.pattern: not a regular expression")


@pytest.mark.parametrize(
    "line",
    ["limits: {memory_mb: 0, nice: -5}", "stop: {grace: 0}", "ready: {when: running, seconds: 0}"],
)
def test_nought_is_a_number_where_it_stands_for_none(tmp_path: Path, line: str) -> None:
    text = (
        PROFILE
        if not line.startswith("ready")
        else PROFILE.replace("      ready: {when: running}\n", "")
    )
    assert "mine" in loaded(tmp_path, f"{text}      {line}\n").gateways.profiles


@pytest.mark.parametrize("token", ["1234567890123456789", "12345678901234567.5", "[a, b]", "null"])
def test_what_stands_at_a_token_is_not_told_on(tmp_path: Path, token: str) -> None:
    found = problems(
        tmp_path, f"auth:\n  tokens:\n    - {{name: proxy, scopes: ['*'], token: {token}}}\n"
    )
    assert found
    assert found[0].startswith("3: auth.tokens[0]")
    assert "1234567" not in "".join(found)
    assert "'a'" not in "".join(found)
