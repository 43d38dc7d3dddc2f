"""What a reload would change. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from config.model import Config
from config.webhooks import shown_url
from supervisor.log import MASK, is_secret, masked

# What cannot change while it runs, and why.
_NEEDS_RESTART = {"state": "the state folder is opened once"}


class Change(msgspec.Struct, frozen=True):
    """One difference: its path, both values (secrets masked), and what applying it does."""

    path: str
    old: Any
    new: Any
    effect: str


def diff(old: Config, new: Config) -> list[Change]:
    """Every difference, leaf by leaf; lists are compared whole."""
    found: list[Change] = []
    _compare(msgspec.to_builtins(old), msgspec.to_builtins(new), "", found)
    return found


def _compare(old: Any, new: Any, path: str, found: list[Change]) -> None:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{path}.{key}" if path else key
            _compare(old.get(key), new.get(key), below, found)
        return
    found.append(Change(path, _mask(path, old), _mask(path, new), _effect(path, old, new)))


def _effect(path: str, old: Any, new: Any) -> str:
    """What applying a change at this path does, in words."""
    parts = path.split(".")
    if path in _NEEDS_RESTART:
        return f"needs a restart of the appliance: {_NEEDS_RESTART[path]}"
    if parts[:2] == ["gateways", "profiles"]:
        if len(parts) == 3 and old is None:
            return "new profile, used from the next start on"
        if len(parts) == 3 and new is None:
            return "gone: its gateways run on until they end, and none starts with it"
        return f"gateways of profile {parts[2]!r} start again once they have no call"
    if parts[0] == "gateways":
        return "for gateways started from now on"
    if parts[0] == "egress":
        return "for tasks claimed from now on"
    if parts[0] in ("runtime", "calls"):
        return "for calls from now on"
    if parts[0] == "webhooks":
        return f"the webhook {parts[1]!r} alone starts again, and goes on where it was"
    if path == "server.bind":
        return "added addresses are opened and removed ones closed; the others stay"
    if parts[:2] == ["server", "tls"]:
        return "for connections from now on"
    return "at once"


def changed_profiles(old: Config, new: Config) -> set[str]:
    """Names of gateway profiles that differ or are gone."""
    before, after = old.gateways.profiles, new.gateways.profiles
    return {name for name in before if before[name] != after.get(name)}


def _mask(path: str, value: Any) -> Any:
    if path.startswith("auth.tokens") or is_secret(path.rpartition(".")[2]) or ".env." in path:
        return MASK
    if path.startswith("webhooks."):
        return _mask_webhook(path, value)
    if path.startswith("runtime."):
        # A header of a tool may be a key.
        if path.endswith(".endpoint") and isinstance(value, str):
            return shown_url(value)
        return MASK if ".headers" in path else masked(_without_headers(value))
    if isinstance(value, dict) and value.get("env"):
        # A profile that is new or gone: its environment is where its secrets are.
        value = {**value, "env": MASK}
    return masked(value)


def _without_headers(value: Any) -> Any:
    """Of tools: without what headers and the queries of addresses may hold."""
    if isinstance(value, list):
        return [_without_headers(v) for v in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, below in value.items():
        if key == "headers" and below:
            found[key] = MASK
        elif key == "endpoint" and isinstance(below, str):
            found[key] = shown_url(below)
        else:
            found[key] = _without_headers(below)
    return found


def _mask_webhook(path: str, value: Any) -> Any:
    """Whatever is in a header may be a key, and so may a query be."""
    if ".headers" in path:
        return MASK
    if path.endswith(".url") and isinstance(value, str):
        return shown_url(value)
    if isinstance(value, dict):
        value = {**value, "url": shown_url(value["url"])}
        if value.get("headers"):
            value["headers"] = MASK
    return masked(value)
