"""`runtime.include`: files beside the configuration that add to its `runtime` section."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from config.runtime import SECTIONS
from config.source import ConfigError, Document, Path, Problem, dotted, parse

# Of files, and of a folder that a pattern goes through.
MOST = 2000


def include(document: Document, folder: FilePath, problems: list[Problem]) -> None:
    """Add what the included files have. What is in two places is a problem that names both."""
    runtime = document.data.get("runtime")
    if not isinstance(runtime, dict):
        return
    wanted = runtime.get("include") or []
    at: Path = ("runtime", "include")
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        if not isinstance(pattern, str):
            continue  # its type is a problem of its own
        try:
            found = _matching(folder, pattern)
        except (OSError, ValueError) as error:
            problems.append(Problem(document.position(at), dotted(at), f"{pattern!r}: {error}"))
            continue
        for file in found:
            _add(document, runtime, file, folder, problems)


def _matching(folder: FilePath, pattern: str) -> list[FilePath]:
    """Sorted, so that the same folder is always read in the same order."""
    base = FilePath(pattern)
    root, below = (FilePath(base.anchor), base.relative_to(base.anchor)) if base.anchor else (
        folder, base
    )  # fmt: skip
    if not below.name:
        raise ValueError("expected the name of a file, or a pattern of names")
    found = sorted(path for path in root.glob(str(below)) if path.is_file())
    if len(found) > MOST:
        raise ValueError(f"more than {MOST} files")
    if not found and not set("*?[") & set(pattern):
        raise ValueError("there is no such file")
    return found


def _add(
    document: Document,
    runtime: dict[str, Any],
    file: FilePath,
    folder: FilePath,
    problems: list[Problem],
) -> None:
    name = str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
    try:
        part = parse(file.read_text("utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(name, "", f"cannot be read: {error}"))
        return
    except ConfigError as error:
        problems += error.problems
        return
    for path, where in part.where.items():
        document.where.setdefault(("runtime", *path), where)
    for section, entries in part.data.items():
        at: Path = ("runtime", section)
        if section not in SECTIONS:
            message = f"unknown key; known in an included file: {', '.join(SECTIONS)}"
            problems.append(Problem(part.position((section,)), dotted(at), message))
            continue
        if not isinstance(entries, dict):
            problems.append(
                Problem(part.position((section,)), dotted(at), "expected a mapping by id")
            )
            continue
        mine = runtime.get(section)
        mine = runtime[section] = dict(mine) if isinstance(mine, dict) else {}
        for key, entry in entries.items():
            if key in mine:
                first = document.position((*at, key))
                problems.append(
                    Problem(
                        part.position((section, key)), dotted((*at, key)), f"is also in {first}"
                    )
                )
            else:
                mine[key] = entry
