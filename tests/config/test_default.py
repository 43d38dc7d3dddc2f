"""The packaged defaults: they load, and they show every key there is."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from config.load import default_text, load
from config.model import Config, Profile
from config.section import Section
from config.source import parse

# Sections that are off unless a file turns them on.
OFF = {"server.tls", "egress.upload"}


def sections(kind: Any = Config, at: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every section of the model, and where it stands; `*` is any name."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        for inner in typing.get_args(kind):
            yield from sections(inner, at)
    elif origin in (list, dict):
        yield from sections(typing.get_args(kind)[-1], f"{at}.*")
    elif isinstance(kind, type) and issubclass(kind, Section):
        yield at.lstrip("."), kind
        for name, hint in typing.get_type_hints(kind).items():
            yield from sections(hint, f"{at}.{name}")


def test_the_defaults_are_a_whole_configuration() -> None:
    config = load(None)
    assert config.server.bind == ["127.0.0.1:8080"]
    assert config.state == "./var"
    assert config.auth.anonymous == []
    assert config.auth.tokens == []


def test_the_profiles_of_the_examples_are_there() -> None:
    profiles = load(None).gateways.profiles
    assert {"baresip", "recording", "streaming", "script"} <= set(profiles)
    assert profiles["recording"].record


def test_every_key_that_needs_a_value_stands_in_the_file() -> None:
    data = parse(default_text(), "default.yaml").data
    for at, kind in sections():
        if "*" in at or at in OFF:
            continue
        below: Any = data
        for part in at.split(".") if at else []:
            below = below[part]
        assert set(below) == set(typing.get_type_hints(kind)), at


def test_every_section_says_what_it_is() -> None:
    for at, kind in sections():
        assert kind.__doc__, at
        assert kind.__doc__ != Section.__doc__, at


def test_every_field_that_a_profile_fills_in_is_told() -> None:
    for field in ("gw_id", "address", "sip_port", "control_port", "rtp_first", "rtp_last"):
        assert f"{{{field}}}" in (Profile.__doc__ or "")
