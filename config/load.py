"""From files to a checked Config, or to a list of all that is wrong and where."""

from __future__ import annotations

import difflib
import functools
import types
import typing
from importlib import resources
from pathlib import Path as FilePath
from typing import Any

import msgspec

from config.check import cross_check
from config.include import include
from config.model import Config
from config.runtime import check_runtime, normalize
from config.section import Section
from config.source import ConfigError, Document, Path, Problem, dotted, interpolate, overlay, parse

FILE_NAME = "switchboard.yaml"


def default_text() -> str:
    """The packaged default.yaml."""
    return resources.files("config").joinpath("default.yaml").read_text("utf-8")


def find(path: FilePath | None) -> FilePath | None:
    """The file to use: the one given, `switchboard.yaml` here, or None for the defaults alone."""
    if path is not None:
        return path
    here = FilePath(FILE_NAME)
    return here if here.exists() else None


def load(path: FilePath | None) -> Config:
    """Load, merge over the defaults, interpolate and check. Raises ConfigError."""
    return _checked(_read(path), path)


def state_folder(path: FilePath | None) -> FilePath:
    """Where the state is, of a file whose other sections need not be usable.

    Whoever brings back a backup may not have the secrets that they name. A key that is no section
    is refused all the same: it may be `state`, misspelt. Raises ConfigError.
    """
    document = _read(path)
    sections = {info.name for info in msgspec.structs.fields(Config)} - {"state"}
    document.data = {k: v for k, v in document.data.items() if k not in sections}
    return FilePath(_checked(document, path).state)


def _read(path: FilePath | None) -> Document:
    if path is None:
        return Document({})
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), "", f"cannot be read: {error}")]) from error
    return parse(text, str(path))


def _checked(document: Document, path: FilePath | None) -> Config:
    document = overlay(parse(default_text(), "default.yaml"), document)
    folder = FilePath() if path is None else path.parent
    problems: list[Problem] = []
    include(document, folder, problems)
    interpolate(document, folder, problems)
    walker = _Walker(document)
    walker.walk(document.data, Config, ())
    problems += walker.problems
    if problems:
        raise ConfigError(problems)
    problems += normalize(document)
    config = msgspec.convert(document.data, Config)
    for at, message in (*cross_check(config), *check_runtime(config.runtime, document.position)):
        problems.append(Problem(document.position(at), dotted(at), message))
    if problems:
        raise ConfigError(problems)
    return config


class _Walker:
    """Checks a value against a type and notes everything that does not fit, not only the first."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def note(self, path: Path, message: str) -> None:
        """Add a problem at a path. What may be a secret (of a token, a tool) is not told on."""
        if path[:2] == ("auth", "tokens") or path[:1] in (("webhooks",), ("runtime",)):
            message = message.partition(", got: ")[0]
        self.problems.append(Problem(self.document.position(path), dotted(path), message))

    def walk(self, value: Any, kind: Any, path: Path) -> None:
        """Check one value and all below it."""
        origin = typing.get_origin(kind)
        if origin in (typing.Union, types.UnionType):
            if value is None:
                return
            kinds = [k for k in typing.get_args(kind) if k is not type(None)]
            # One, or a list of such: a list is looked at as one.
            lists = [k for k in kinds if typing.get_origin(k) is list]
            kind = lists[0] if lists and isinstance(value, list) else kinds[0]
            origin = typing.get_origin(kind)
        if isinstance(kind, type) and issubclass(kind, Section):
            self._section(value, kind, path)
        elif origin is dict:
            if not isinstance(value, dict):
                self.note(path, f"expected a mapping, got: {_shown(value)}")
                return
            for key, below in value.items():
                self.walk(below, typing.get_args(kind)[1], (*path, key))
        elif origin is list:
            if not isinstance(value, list):
                self.note(path, f"expected a list, got: {_shown(value)}")
                return
            for i, below in enumerate(value):
                self.walk(below, typing.get_args(kind)[0], (*path, i))
        else:
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                self.note(path, _expected(kind, value, str(error)))

    def _section(self, value: Any, kind: type[Section], path: Path) -> None:
        if not isinstance(value, dict):
            self.note(path, f"expected a mapping, got: {_shown(value)}")
            return
        hints = _hints(kind)
        for key, below in value.items():
            if key in hints:
                self.walk(below, hints[key], (*path, key))
                continue
            near = difflib.get_close_matches(key, hints, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints)}"
            self.note((*path, key), f"unknown key; {known}")
        for name in _required(kind):
            if name not in value:
                self.note(path, f"{name!r} is missing")


@functools.lru_cache
def _hints(kind: type[Section]) -> dict[str, Any]:
    """Of each section once: there may be many thousands of one kind."""
    return typing.get_type_hints(kind)


@functools.lru_cache
def _required(kind: type[Section]) -> tuple[str, ...]:
    return tuple(info.name for info in msgspec.structs.fields(kind) if info.required)


def _expected(kind: Any, value: Any, fallback: str) -> str:
    if typing.get_origin(kind) is typing.Literal:
        words = [str(word) for word in typing.get_args(kind)]
        near = difflib.get_close_matches(str(value), words, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"expected one of {', '.join(words)}, got: {_shown(value)}{hint}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if kind in names:
        return f"expected {names[kind]}, got: {_shown(value)}"
    return fallback


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
