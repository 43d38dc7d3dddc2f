"""A reload is whole: a part that refuses it brings the others back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from actors.reconcile import Applier, Current, Reconciler, Reload, Reloaded
from config.load import load
from config.model import Config
from config.source import ConfigError, Problem
from supervisor.errors import Rejected
from supervisor.ref import Ref
from supervisor.spec import ChildSpec
from tests.supervisor.kit import Bench, Tree

OLD = load(None)
NEW = msgspec.structs.replace(OLD, log=msgspec.structs.replace(OLD.log, level="debug"))


class Parts:
    """Fakes of the appliance's parts that write down what they are brought to."""

    def __init__(self, current: Current) -> None:
        self.current = current
        self.journal: list[tuple[str, str]] = []

    def part(self, name: str, *refuses: str) -> Applier:
        """One that refuses to be brought to these levels."""

        async def apply(old: Config, new: Config) -> None:
            # What it looks at beside its arguments is the same.
            assert self.current.config is new
            assert old is not new
            self.journal.append((name, new.log.level))
            if new.log.level in refuses:
                raise RuntimeError(f"{name} cannot")

        return apply


@asynccontextmanager
async def reconciler(
    folder: Path, current: Current, appliers: Sequence[Applier], found: Config | ConfigError = NEW
) -> AsyncIterator[tuple[Ref[Reload], Bench]]:
    def reading() -> Config:
        if isinstance(found, ConfigError):
            raise found
        return found

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            bench = await Bench(folder).start(nursery)
            spec = ChildSpec("config", lambda: Reconciler(current, reading, bench.store, appliers))
            tree = await Tree([spec]).start(nursery)
            yield tree.child("config").ref, bench
            assert tree.child("config").restarts == 0
            await tree.stop()
            await bench.close()


async def test_all_parts_are_brought_to_the_new_configuration_in_order(tmp_path: Path) -> None:
    current = Current(OLD)
    parts = Parts(current)
    appliers = [parts.part("a"), parts.part("b")]
    async with reconciler(tmp_path, current, appliers) as (ref, bench):
        answer = await ref.ask(Reload())
        assert isinstance(answer, Reloaded)
        assert answer.applied
        assert parts.journal == [("a", "debug"), ("b", "debug")]
        assert current.config is NEW
        assert [event.type for event in bench.published] == ["config.reloaded"]
        assert (await ref.ask(Reload())).changes == []
        assert len(parts.journal) == 2


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_part_that_raises_brings_those_before_it_back(tmp_path: Path, at: int) -> None:
    current = Current(OLD)
    parts = Parts(current)
    names = ["a", "b", "c"]
    appliers = [parts.part(n, *(["debug"] if i == at else [])) for i, n in enumerate(names)]
    async with reconciler(tmp_path, current, appliers) as (ref, bench):
        with pytest.raises(Rejected, match=f"nothing was changed: {names[at]} cannot") as caught:
            await ref.ask(Reload())
        assert caught.value.code == "conflict"
        assert current.config is OLD
        there = [(n, "debug") for n in names[: at + 1]]
        back = [(n, "info") for n in reversed(names[: at + 1])]
        assert parts.journal == there + back
        (event,) = bench.published
        assert event.type == "config.refused"
        assert f"{names[at]} cannot".encode() in bytes(event.data)


async def test_one_that_cannot_go_back_does_not_keep_the_others(tmp_path: Path) -> None:
    current = Current(OLD)
    parts = Parts(current)
    appliers = [parts.part("a"), parts.part("b", "info"), parts.part("c", "debug")]
    async with reconciler(tmp_path, current, appliers) as (ref, _bench):
        with pytest.raises(Rejected, match="c cannot"):
            await ref.ask(Reload())
        assert parts.journal[-1] == ("a", "info")
        assert current.config is OLD


async def test_a_dry_run_and_a_bad_file_touch_no_part(tmp_path: Path) -> None:
    current = Current(OLD)
    parts = Parts(current)
    async with reconciler(tmp_path / "dry", current, [parts.part("a")]) as (ref, bench):
        answer = await ref.ask(Reload(dry=True))
        assert [change.path for change in answer.changes] == ["log.level"]
        assert bench.published == []
    wrong = ConfigError([Problem("file:3", "log.level", "expected one of …")])
    async with reconciler(tmp_path / "bad", current, [parts.part("a")], wrong) as (ref, bench):
        with pytest.raises(Rejected) as caught:
            await ref.ask(Reload())
        assert caught.value.details == {"problems": ["file:3: log.level: expected one of …"]}
        assert [event.type for event in bench.published] == ["config.refused"]
    assert parts.journal == []
    assert current.config is OLD
