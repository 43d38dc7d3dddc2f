"""What types cannot say: one wrong thing each, told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.check import is_scope, split_address
from tests.config.files import loaded, problems

LONG = "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {bind: []}", "server.bind: expected at least one address"),
        ("server: {bind: [here]}", "server.bind[0]: expected host:port, got: 'here'"),
        ("server: {bind: ['127.0.0.1:99999']}", "server.bind[0]: expected host:port"),
        ("server: {bind: ['example.com:80']}", "server.bind[0]: 'example.com' does not appear"),
        ("auth: {anonymous: [nowhere]}", "auth.anonymous[0]: unknown surface 'nowhere'"),
        (
            f"auth: {{tokens: [{{name: a, token: {LONG}, scopes: [gateway]}}]}}",
            "auth.tokens[0].scopes[0]: expected kind:ro, kind:rw or *, got: 'gateway'",
        ),
        (
            "auth: {tokens: [{name: a, token: short, scopes: ['*']}]}",
            "auth.tokens[0].token: expected at least 16 characters",
        ),
        (
            "auth: {tokens: [{name: a, sha256: xyz, scopes: ['*']}]}",
            "auth.tokens[0].sha256: expected 64 hexadecimal digits",
        ),
        (
            "auth: {tokens: [{name: a, scopes: ['*']}]}",
            "auth.tokens[0]: expected exactly one of `token` and `sha256`",
        ),
        (
            (
                f"auth: {{tokens: [{{name: a, token: {LONG}, scopes: []}},"
                f" {{name: a, token: {LONG}x, scopes: []}}]}}"
            ),
            "auth.tokens[1]: token 'a' is also auth.tokens[0]",
        ),
        ("limits: {body: 0}", "limits.body: expected a number above 0, got: 0"),
        ("limits: {read_timeout: -1}", "limits.read_timeout: expected a number above 0, got: -1"),
        (
            "gateways: {ports: {sip: {first: 9, last: 8}}}",
            "gateways.ports.sip: expected 0 < first <= last <= 65535",
        ),
        (
            "gateways: {ports: {control: {last: 70000}}}",
            "gateways.ports.control: expected 0 < first <= last <= 65535",
        ),
        (
            "gateways: {ports: {control: {first: 26500, last: 26600}}}",
            "gateways.ports.control: overlaps gateways.ports.sip",
        ),
        (
            "gateways: {ports: {rtp_per_gateway: 3}}",
            "gateways.ports.rtp_per_gateway: expected at least 4",
        ),
        ("gateways: {address: here}", "gateways.address: expected an IP address, got: 'here'"),
        (
            "gateways: {profiles: {'a b': {command: [x], ready: {when: running}}}}",
            "gateways.profiles.a b: a profile's name is letters",
        ),
        (
            "gateways: {profiles: {x: {ready: {when: running}}}}",
            "gateways.profiles.x: expected a command",
        ),
        (
            "gateways: {profiles: {x: {use_container: true, ready: {when: running}}}}",
            "gateways.profiles.x: use_container needs a `container` section",
        ),
        (
            "gateways: {profiles: {x: {command: [x], ready: {when: control}}}}",
            "gateways.profiles.x.ready.when: `control` needs `control: ctrl_tcp`",
        ),
        (
            "gateways: {profiles: {x: {command: [x], ready: {when: line, pattern: '('}}}}",
            "gateways.profiles.x.ready.pattern: not a regular expression",
        ),
        (
            "gateways: {profiles: {x: {command: [x], ready: {when: running}, stream: {}}}}",
            "gateways.profiles.x.stream: needs `record: true`",
        ),
        (
            "gateways: {profiles: {x: {command: [x], ready: {when: running}, files: {a/b: ''}}}}",
            "gateways.profiles.x.files.a/b: expected a plain file name",
        ),
        (
            "gateways: {profiles: {x: {command: [x], ready: {when: running}, files: {..: ''}}}}",
            "gateways.profiles.x.files...: expected a plain file name",
        ),
    ],
)
def test_one_thing_wrong(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.removeprefix("1: ").startswith(problem)


def test_wrong_things_of_all_sections_are_told_together(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "server: {bind: [here]}\nlimits: {body: 0}\ngateways: {address: there}\n",
    )
    assert [line.partition(":")[0] for line in found] == ["1", "2", "3"]


def test_no_rate_limit_is_a_limit_of_nought(tmp_path: Path) -> None:
    assert loaded(tmp_path, "limits: {requests_per_minute: 0}").limits.requests_per_minute == 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
    ],
)
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["", ":", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "a:1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are of several places
        split_address(text)


def test_scopes_are_of_these_forms_alone() -> None:
    for scope in ("*", "gateway:ro", "gateway:rw", "job:*", "plugin:echo:rw", "read:*"):
        assert is_scope(scope), scope
    for scope in ("", "gateway", "gateway:", "gateway:wr", "GATEWAY:ro", "a:b:c:ro", "* ", "*:ro"):
        assert not is_scope(scope), scope
