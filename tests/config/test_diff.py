"""What a reload would change: leaf by leaf, secrets masked, with what applying it does."""

from __future__ import annotations

from pathlib import Path

from config.diff import Change, changed_profiles, diff
from config.load import load
from tests.config.files import loaded

NOW = load(None)


def changes(folder: Path, text: str) -> dict[str, Change]:
    return {change.path: change for change in diff(NOW, loaded(folder, text))}


def test_the_same_differs_in_nothing(tmp_path: Path) -> None:
    assert diff(NOW, loaded(tmp_path, "")) == []


def test_each_leaf_that_differs_is_told(tmp_path: Path) -> None:
    found = changes(tmp_path, "limits: {body: 5, header: 6}\nlog: {level: debug}")
    assert set(found) == {"limits.body", "limits.header", "log.level"}
    assert (found["limits.body"].old, found["limits.body"].new) == (1048576, 5)
    assert found["log.level"].effect == "at once"


def test_lists_are_compared_whole(tmp_path: Path) -> None:
    (change,) = diff(NOW, loaded(tmp_path, "server: {bind: ['127.0.0.1:8080', '127.0.0.1:8100']}"))
    assert change.path == "server.bind"
    assert change.old == ["127.0.0.1:8080"]
    assert change.new == ["127.0.0.1:8080", "127.0.0.1:8100"]
    assert "added addresses are opened and removed ones closed" in change.effect


def test_what_comes_and_goes_is_told(tmp_path: Path) -> None:
    found = changes(
        tmp_path,
        "gateways: {profiles: {script: null, mine: {command: [x], ready: {when: running}}}}",
    )
    assert set(found) == {"gateways.profiles.script", "gateways.profiles.mine"}
    assert found["gateways.profiles.script"].new is None
    assert found["gateways.profiles.mine"].old is None
    effects = [found[f"gateways.profiles.{name}"].effect for name in ("mine", "script")]
    assert effects == [
        "new profile, used from the next start on",
        "gone: its gateways run on until they end, and none starts with it",
    ]


def test_secrets_are_masked_on_both_sides(tmp_path: Path) -> None:
    found = changes(
        tmp_path, "auth: {tokens: [{name: a, token: 'never-shown-to-anyone', scopes: ['*']}]}"
    )
    assert set(found) == {"auth.tokens"}
    assert found["auth.tokens"].old == found["auth.tokens"].new == "***"


def test_secrets_inside_of_what_comes_whole_are_masked(tmp_path: Path) -> None:
    text = """
gateways:
  profiles:
    mine: {command: [x], ready: {when: running}, env: {SIP_PASSWORD: never-shown, ROOM: hall}}
"""
    shown = repr(diff(NOW, loaded(tmp_path, text)))
    assert "never-shown" not in shown
    assert "running" in shown


def test_effects_say_what_applying_does(tmp_path: Path) -> None:
    text = """
state: ./elsewhere
server: {tls: {certificate: a, key: b}}
gateways: {linger: 3, profiles: {baresip: {description: other}}}
"""
    effects = {path: change.effect for path, change in changes(tmp_path, text).items()}
    assert effects == {
        "state": "needs a restart of the appliance: the state folder is opened once",
        "server.tls": "for connections from now on",
        "gateways.linger": "for gateways started from now on",
        "gateways.profiles.baresip.description": (
            "gateways of profile 'baresip' start again once they have no call"
        ),
    }


def test_profiles_that_differ_or_are_gone(tmp_path: Path) -> None:
    new = loaded(
        tmp_path,
        """
gateways:
  profiles:
    baresip: {stop: {grace: 9}}
    script: null
    mine: {command: [x], ready: {when: running}}
""",
    )
    assert changed_profiles(NOW, new) == {"baresip", "script"}
    assert changed_profiles(NOW, NOW) == set()


HOOK = "webhooks: {hook: {url: 'http://a/?key=hidden', topics: [x], headers: {X-Room: never-shown}"
KEY = "whsec_" + "a" * 32


def test_a_webhooks_secrets_are_masked_whole_and_leaf_by_leaf(tmp_path: Path) -> None:
    text = f"{HOOK}, secret: {KEY}}}}}"
    found = changes(tmp_path, text)
    assert set(found) == {"webhooks.hook"}
    assert found["webhooks.hook"].new["url"] == "http://a/?***"
    before = loaded(tmp_path, text)
    other = HOOK.replace("never-shown", "nor-this").replace("hidden", "hidden-too")
    after = loaded(tmp_path, f"{other}, secret: [{KEY}, {KEY}bbbb], timeout: 7}}}}")
    leaves = {change.path: change for change in diff(before, after)}
    assert set(leaves) == {
        "webhooks.hook.headers.X-Room",
        "webhooks.hook.secret",
        "webhooks.hook.timeout",
        "webhooks.hook.url",
    }
    effect = "the webhook 'hook' alone starts again, and goes on where it was"
    assert {change.effect for change in leaves.values()} == {effect}
    shown = repr(found) + repr(leaves) + repr(diff(after, NOW))
    for secret in (KEY, "never-shown", "nor-this", "hidden"):
        assert secret not in shown
