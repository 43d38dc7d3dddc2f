"""The section of a webhook: one wrong thing each, and no secret told with it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from config.webhooks import key, secrets_of, shown_url
from tests.config.files import loaded, problems

KEY = "whsec_" + base64.b64encode(b"k" * 32).decode()


def section(**more: str) -> str:
    """A good one, with something else in it."""
    whole = {"url": "http://127.0.0.1/x", "secret": KEY, "topics": "[gateway]", **more}
    return "webhooks: {hook: {" + ", ".join(f"{k}: {v}" for k, v in whole.items()) + "}}"


def test_the_least_is_an_address_a_secret_and_topics(tmp_path: Path) -> None:
    hook = loaded(tmp_path, section()).webhooks["hook"]
    assert (hook.attempts, hook.backoff_first, hook.backoff_cap) == (5, 15, 300)
    assert (hook.body, hook.enabled, hook.timeout) == ("event", True, 15)


def test_there_are_none_unless_there_are(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").webhooks == {}


def test_a_secret_comes_from_the_environment_or_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", KEY)
    (tmp_path / "old").write_text(KEY + "\n")
    hook = loaded(tmp_path, section(secret="['${HOOK_SECRET}', '${file:old}']")).webhooks["hook"]
    assert secrets_of(hook) == [KEY, KEY]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"url": "ftp://a/"}, ".url: expected http:// or https:// and a host"),
        ({"url": "a/b"}, ".url: expected http:// or https://"),
        ({"url": "'http://'"}, ".url: expected http:// or https://"),
        ({"url": "'http://a:99999/'"}, ".url: is no URL"),
        ({"url": f"http://{'a' * 64}/"}, ".url: is no URL"),
        ({"url": "http://me:word@a/"}, ".url: a name and password belong into `headers`"),
        ({"url": "http://a/ä"}, ".url: has characters that must be written as %XX"),
        ({"secret": "'c29tZXRoaW5n'"}, ".secret: expected whsec_ and base64"),
        ({"secret": "whsec_äää"}, ".secret: what follows whsec_ is no base64"),
        ({"secret": "whsec_a!"}, ".secret: what follows whsec_ is no base64"),
        ({"secret": "whsec_c29tZXRoaW5n"}, ".secret: expected 24 to 64 bytes, got: 9"),
        ({"secret": "whsec_" + "a" * 88}, ".secret: expected 24 to 64 bytes, got: 66"),
        ({"secret": f"[{KEY}, x]"}, ".secret[1]: expected whsec_ and base64"),
        ({"secret": "[]"}, ".secret: expected at least one"),
        ({"secret": "1234567"}, ".secret: expected a text"),
        ({"secret": f"[{KEY}, 1234567]"}, ".secret[1]: expected a text"),
        ({"topics": "[]"}, ".topics: expected at least one"),
        ({"topics": "['a b']"}, ".topics[0]: expected a subject"),
        ({"topics": "['gateway', 'gw*']"}, ".topics[1]: expected a subject"),
        ({"once": "['']"}, ".once[0]: expected a subject"),
        ({"once": "[a.b]", "once_hours": "200"}, ".once_hours: expected no more than"),
        ({"attempts": "0"}, ".attempts: expected a number above 0"),
        ({"timeout": "500"}, ".timeout: expected at most 120"),
        ({"concurrency": "65"}, ".concurrency: expected at most 64"),
        ({"backoff_first": "400"}, ".backoff_first: expected no more than `backoff_cap`"),
        ({"body": "all"}, ".body: expected one of event, data"),
        ({"headers": "{Webhook-Id: x}"}, ".headers.Webhook-Id: is set by the appliance itself"),
        ({"headers": "{Content-Type: x}"}, ".headers.Content-Type: is set by"),
        ({"headers": "{'a b': x}"}, ".headers.a b: is no name for a header"),
        ({"headers": '{A: "x\\r\\ny"}'}, ".headers.A: expected printable ASCII"),
        ({"secrt": "x"}, ".secrt: unknown key; did you mean 'secret'?"),
    ],
)
def test_one_thing_wrong(tmp_path: Path, more: dict[str, str], problem: str) -> None:
    (found,) = problems(tmp_path, section(**more))
    assert found.startswith(f"1: webhooks.hook{problem}")
    # What stands there may be a secret, in the wrong place.
    for secret in (KEY, "c29tZXRoaW5n", "1234567", "word"):
        assert secret not in found.replace("password", "")


def test_a_name_is_plain(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, section().replace("hook:", "'a b':"))
    assert found.startswith("1: webhooks.a b: a webhook's name is letters")


@pytest.mark.parametrize("size", [24, 25, 26, 63, 64])
def test_padding_may_be_left_out(size: int) -> None:
    text = base64.b64encode(b"k" * size).decode()
    assert key("whsec_" + text) == key("whsec_" + text.rstrip("=")) == b"k" * size


def test_a_query_is_not_shown() -> None:
    assert shown_url("https://a:1/b?key=c") == "https://a:1/b?***"
    assert shown_url("https://a/b") == "https://a/b"
