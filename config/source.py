"""YAML with positions: plain data, and where in which file each value stands."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

Path = tuple[str | int, ...]

MAX_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration."""

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.path + ': ' if self.path else ''}{self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used: all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


@dataclass(slots=True)
class Document:
    """Data, and the position of each path in it (`file:line`)."""

    data: Any = None
    where: dict[Path, str] = field(default_factory=dict)

    def position(self, path: Path) -> str:
        """Where the path, or the nearest above it, stands."""
        while path not in self.where and path:
            path = path[:-1]
        return self.where.get(path, "configuration")


def dotted(path: Path) -> str:
    """`('gateways', 'profiles', 'x', 'command', 0)` as `gateways.profiles.x.command[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def parse(text: str, name: str) -> Document:
    """Parse one YAML file. Raises ConfigError with the position of what is wrong."""
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
        document = Document({})
        if node is not None:
            document.data = _construct(node, (), name, loader, document, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ConfigError(
            [Problem(f"{name}:{line}", "", f"{error.problem or error.context}")]
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(name, "", str(error))]) from error
    finally:
        loader.dispose()
    if not isinstance(document.data, dict):
        raise ConfigError([Problem(f"{name}:1", "", "expected a mapping of sections")])
    return document


def _construct(
    node: yaml.Node, path: Path, name: str, loader: Any, into: Document, open_nodes: set[int]
) -> Any:
    where = f"{name}:{node.start_mark.line + 1}"
    into.where[path] = where
    if id(node) in open_nodes:
        raise ConfigError([Problem(where, dotted(path), "an alias that contains itself")])
    if len(into.where) > 200_000:
        raise ConfigError([Problem(where, dotted(path), "too many values")])
    open_nodes = open_nodes | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(child, (*path, i), name, loader, into, open_nodes)
            for i, child in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            key = key if isinstance(key, str) else str(key_node.value)
            value = _construct(value_node, (*path, key), name, loader, into, open_nodes)
            into.where[(*path, key)] = f"{name}:{key_node.start_mark.line + 1}"
            if key in found:
                raise ConfigError(
                    [Problem(into.where[(*path, key)], dotted((*path, key)), "is there twice")]
                )
            found[key] = value
        return found
    return loader.construct_object(node, deep=True)


def overlay(base: Document, top: Document) -> Document:
    """`top` laid over `base`: mappings merge, everything else replaces, null removes."""
    merged = Document(where=dict(base.where))

    def merge(low: Any, high: Any, path: Path) -> Any:
        if path in top.where:
            merged.where[path] = top.where[path]
        if isinstance(low, dict) and isinstance(high, dict):
            result = dict(low)
            for key, value in high.items():
                if value is None and isinstance(low.get(key), dict):
                    result.pop(key)
                elif key in low:
                    result[key] = merge(low[key], value, (*path, key))
                else:
                    result[key] = adopt(value, (*path, key))
            return result
        return adopt(high, path)

    def adopt(value: Any, path: Path) -> Any:
        if path in top.where:
            merged.where[path] = top.where[path]
        if isinstance(value, dict):
            return {k: adopt(v, (*path, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [adopt(v, (*path, i)) for i, v in enumerate(value)]
        return value

    merged.data = merge(base.data, top.data, ())
    return merged


_REFERENCE = re.compile(r"\$(\$?)\{([^}]*)\}")


def interpolate(document: Document, folder: FilePath, problems: list[Problem]) -> None:
    """Replace `${NAME}`, `${NAME:-default}` and `${file:path}`; `$${` stands for `${`.

    A file's path is relative to the configuration file's folder; its last line end is dropped.
    """

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {k: walk(v, (*path, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(v, (*path, i)) for i, v in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _REFERENCE.sub(lambda m: reference(m, path), value)
        return value

    def reference(match: re.Match[str], path: Path) -> str:
        escaped, body = match.groups()
        if escaped:
            return "${" + body + "}"
        try:
            return _resolve(body, folder)
        except LookupError as error:
            why = str(error)
        except OSError as error:
            why = f"{body}: {error.strerror}"
        except UnicodeDecodeError:
            why = f"{body}: it is no UTF-8"
        problems.append(Problem(document.position(path), dotted(path), why))
        return ""

    document.data = walk(document.data, ())


def _resolve(body: str, folder: FilePath) -> str:
    if body.startswith("file:"):
        target = folder / body.removeprefix("file:")
        if target.exists() and not target.is_file():
            raise LookupError(f"{target} is not a file")
        if target.stat().st_size > MAX_FILE:
            raise LookupError(f"{target} is too large")
        return target.read_text("utf-8").removesuffix("\n")
    name, has_default, default = body.partition(":-")
    if name in os.environ:
        return os.environ[name]
    if has_default:
        return default
    raise LookupError(f"the environment variable {name} is not set")
