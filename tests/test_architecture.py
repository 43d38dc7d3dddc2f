"""What the layout promises: who imports whom, how large files are, and what no file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("supervisor", "config", "actors", "api")

# Which of our packages each may import; a package may always import itself.
ALLOWED = {
    "supervisor": set[str](),
    "config": {"supervisor"},
    "actors": {"supervisor", "config"},
    "api": {"supervisor", "config", "actors"},
    "main": {"supervisor", "config", "actors", "api"},
}
# What of the runtime the configuration may know: the names of secrets.
CONFIG_OF_SUPERVISOR = {"supervisor.log"}
# Lines that a file may have; those that are known to have more than most.
MOST, LARGEST = 400, 800
LARGE = {
    "actors/egress/mixer.py",
    "actors/egress/queue.py",
    "actors/egress/recorder.py",
    "actors/egress/records.py",
    "actors/egress/worker.py",
    "api/system.py",
    "main.py",
}
# Where whatever is suppressed comes again, to somebody who handles it.
SUPPRESSES_ALL = {"supervisor/tree.py"}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, as it would be checked out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def modules() -> list[Path]:
    """Our Python files, without the tests."""
    return [p for p in tracked("*.py") if p.relative_to(ROOT).parts[0] != "tests"]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def test_imports_go_one_way() -> None:
    for path in modules():
        mine = package_of(path)
        theirs = {name.partition(".")[0] for name in imported(path)} & {*PACKAGES, "main"}
        assert theirs - {mine} <= ALLOWED[mine], path


def test_main_alone_imports_all() -> None:
    all_four = [
        path.name
        for path in modules()
        if {name.partition(".")[0] for name in imported(path)} - {package_of(path)} >= set(PACKAGES)
    ]
    assert all_four == ["main.py"]


def test_the_configuration_knows_little_of_the_runtime() -> None:
    for path in modules():
        if package_of(path) == "config":
            theirs = {name for name in imported(path) if name.startswith("supervisor")}
            assert theirs <= CONFIG_OF_SUPERVISOR, path


def test_no_import_is_relative() -> None:
    for path in modules():
        for node in ast.walk(tree(path)):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_files_fit_in_a_head() -> None:
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in modules()
    }
    assert {path: size for path, size in sizes.items() if size > LARGEST} == {}
    assert {path for path, size in sizes.items() if size > MOST} <= LARGE


def _handlers(module: ast.Module) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            yield node


def test_nothing_is_silenced() -> None:
    """No `except` whose body does nothing; what may be passed over says so: `suppress`."""
    for path in modules():
        for handler in _handlers(tree(path)):
            assert handler.type is not None, f"{path}:{handler.lineno}"
            silent = all(
                isinstance(statement, ast.Pass)
                or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
                for statement in handler.body
            )
            assert not silent, f"{path}:{handler.lineno}"


def test_every_error_is_named_where_it_is_suppressed() -> None:
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                names = {ast.unparse(argument) for argument in node.args}
                allowed = str(path.relative_to(ROOT)) in SUPPRESSES_ALL
                broad = names & {"Exception", "BaseException"}
                assert not broad or allowed, f"{path}:{node.lineno}"


def test_nothing_is_printed() -> None:
    for path in modules():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno}"


def test_nothing_is_left_to_do() -> None:
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r"\b")
    for path in tracked("*.py", "*.yaml", "*.toml", "*.sh", "Makefile"):
        assert not words.search(path.read_text("utf-8")), path


def test_whatever_is_public_says_what_it_is() -> None:
    for path in modules():
        module = tree(path)
        assert ast.get_docstring(module), path
        for node in module.body:
            _says_what_it_is(path, node)


def _says_what_it_is(path: Path, node: ast.AST) -> None:
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if node.name.startswith("_"):
        return
    assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"
    if isinstance(node, ast.ClassDef):
        for below in node.body:
            _says_what_it_is(path, below)


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    places = re.compile("|".join(["/ho" + "me/", "/ro" + "ot/", "/wo" + "rk/", "/Us" + "ers/"]))
    index = re.compile(r"--(extra-)?index-url|--find-links|https?://[^\s]*/simple\b")
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        assert not places.search(text), path
        if path.name.startswith("requirements"):
            assert not index.search(text), path


def test_every_dependency_is_explained() -> None:
    """Each package of pyproject.toml, also of the extras, has a line in the README."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    readme = (ROOT / "README.md").read_text("utf-8").lower().splitlines()
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\s<>=!~\[;]", requirement)[0].lower() for requirement in wanted}
    missing = [
        name
        for name in sorted(names)
        if not any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", line) for line in readme)
    ]
    assert missing == []
