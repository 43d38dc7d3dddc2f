"""What the tests of the runtime share: a small protocol, services that do as told, a tree."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import sqlite_utils
import trio
from sqlite_utils import Migrations

from supervisor.actor import LATER, Actor
from supervisor.backoff import Backoff
from supervisor.bus import RING, EventLog
from supervisor.child import Child, State
from supervisor.database import Database
from supervisor.errors import Rejected
from supervisor.event import Event
from supervisor.intensity import Intensity
from supervisor.mailbox import Ask, Message, Overflow
from supervisor.ref import Ref
from supervisor.reply import Reply
from supervisor.service import Context, Service
from supervisor.spec import Cause, ChildSpec, Restart, StopReason, Strategy
from supervisor.store import Store
from supervisor.system import Happening, System
from supervisor.transaction import Reading, Row, Transaction
from supervisor.tree import Root, Supervisor

SHUTDOWN = StopReason(Cause.SHUTDOWN, "test over")
BY_HAND = StopReason(Cause.BY_HAND, "operator")
# Without jitter, so that a test can say how long a wait is.
EVEN = Backoff(first=1.0, factor=2.0, cap=8.0, jitter=0.0, healthy_after=60.0)
ONCE = Intensity(limit=1, seconds=60)
NEVER = Intensity(limit=0, seconds=60)


# -- a protocol and an actor that speaks it -------------------------------------


@dataclass(frozen=True, slots=True)
class Note(Message):
    """Write down a word."""

    word: str


@dataclass(frozen=True, slots=True)
class Level(Message):
    """The newest value of a meter; older ones are worth nothing."""

    overflow: ClassVar[Overflow] = Overflow.COALESCE
    meter: str
    value: int

    def coalesce_key(self) -> Hashable:
        return self.meter


@dataclass(frozen=True, slots=True)
class Words(Ask[list[str]]):
    """All that was written down."""


@dataclass(frozen=True, slots=True)
class Echo(Ask[str]):
    """Answer with the word itself, and write it down."""

    word: str


@dataclass(frozen=True, slots=True)
class Hold(Ask[str]):
    """Be busy until the gate opens, then answer."""


@dataclass(frozen=True, slots=True)
class Defer(Ask[str]):
    """Be answered later, by the next `Settle`."""


@dataclass(frozen=True, slots=True)
class Settle(Message):
    """Answer all that was deferred."""

    word: str


@dataclass(frozen=True, slots=True)
class Refuse(Ask[str]):
    """Be answered with a Rejected."""


@dataclass(frozen=True, slots=True)
class RefuseTold(Message):
    """Raise a Rejected that nobody waits for."""


@dataclass(frozen=True, slots=True)
class Crash(Message):
    """Raise what is no Rejected."""


@dataclass(frozen=True, slots=True)
class CrashAsked(Ask[str]):
    """Raise what is no Rejected, while somebody waits."""


@dataclass(frozen=True, slots=True)
class Done(Message):
    """End by itself."""


Protocol = (
    Note
    | Level
    | Words
    | Echo
    | Hold
    | Defer
    | Settle
    | Refuse
    | RefuseTold
    | Crash
    | CrashAsked
    | Done
)


class Scribe(Actor[Protocol]):
    """Writes down what it is told."""

    def __init__(self, journal: list[str] | None = None, gate: trio.Event | None = None) -> None:
        self.journal: list[str] = [] if journal is None else journal
        self.gate = gate or trio.Event()
        self.held: list[Reply[str]] = []
        self.busy = trio.Event()

    async def handle(self, message: Protocol) -> object:
        match message:
            case Note(word) | Echo(word):
                self.journal.append(word)
                return word
            case Level(meter, value):
                self.journal.append(f"{meter}={value}")
            case Words():
                return list(self.journal)
            case Hold():
                self.busy.set()
                await self.gate.wait()
                return "held"
            case Defer():
                self.held.append(self.defer())
                return LATER
            case Settle(word):
                for reply in self.held:
                    reply.set(word)
            case Refuse() | RefuseTold():
                raise Rejected("no", "not today", {"word": "no"})
            case Crash() | CrashAsked():
                raise ValueError("boom")
            case Done():
                self.stop_soon()
        return None

    async def on_stop(self, reason: StopReason) -> None:
        self.journal.append(f"stopped ({reason})")


# -- services that do as told -----------------------------------------------------


class Does(Service):
    """Runs a function."""

    def __init__(self, body: Callable[[Context], Awaitable[None]]) -> None:
        self._body = body

    async def run(self, context: Context) -> None:
        await self._body(context)


@dataclass
class Part:
    """A child whose life is written in a journal, and that ends as told.

    `ready_after` is in seconds. `crash` and `end` act on the incarnation that runs now.
    """

    id: str
    journal: list[str]
    ready_after: float = 0.0
    crashes_at_start: int = 0
    ignores_stop: bool = False
    starts: int = 0
    _end: trio.Event = field(default_factory=trio.Event)
    _crash: bool = False

    def crash(self) -> None:
        self._crash = True
        self._end.set()

    def end(self) -> None:
        self._end.set()

    def spec(
        self,
        restart: Restart = Restart.PERMANENT,
        intensity: Intensity | None = None,
        backoff: Backoff = EVEN,
        *,
        grace: float = 5.0,
        ready_timeout: float = 30.0,
        significant: bool = False,
    ) -> ChildSpec:
        return ChildSpec(
            id=self.id,
            start=lambda: Does(self._run),
            restart=restart,
            grace=grace,
            ready_timeout=ready_timeout,
            intensity=intensity or Intensity(),
            backoff=backoff,
            significant=significant,
        )

    async def _run(self, context: Context) -> None:
        self.starts += 1
        self._end, self._crash = trio.Event(), False
        self.journal.append(f"{self.id} starts")
        await trio.sleep(self.ready_after)
        if self.crashes_at_start:
            self.crashes_at_start -= 1
            raise ValueError(f"{self.id} cannot start")
        context.ready()
        self.journal.append(f"{self.id} ready")
        try:
            if self.ignores_stop:
                await trio.sleep_forever()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_then_cancel, context.stopped, nursery)
                nursery.start_soon(_then_cancel, self._end.wait, nursery)
        except trio.Cancelled:
            self.journal.append(f"{self.id} cancelled")
            raise
        if self._crash:
            self.journal.append(f"{self.id} crashes")
            raise ValueError(f"{self.id} crashed")
        self.journal.append(f"{self.id} ends")


def parts(count: int = 3) -> tuple[list[Part], list[str]]:
    """Some of them, and the journal that they share."""
    journal: list[str] = []
    return [Part(name, journal) for name in "abcdef"[:count]], journal


async def _then_cancel(wait: Callable[[], Awaitable[None]], nursery: trio.Nursery) -> None:
    await wait()
    nursery.cancel_scope.cancel()


# -- a tree -----------------------------------------------------------------------


class Tree:
    """A root, what happened in it, and how `run` ended."""

    def __init__(
        self, specs: Sequence[ChildSpec] = (), strategy: Strategy = Strategy.ONE_FOR_ONE
    ) -> None:
        self.happenings: list[Happening] = []
        self.supervisor = Supervisor(specs, strategy)
        self.root = Root(
            self.supervisor, System(rng=random.Random(1), listener=self.happenings.append)
        )
        self.error: BaseException | None = None

    async def run(self) -> None:
        try:
            await self.root.run()
        except Exception as error:
            self.error = error

    async def start(self, nursery: trio.Nursery) -> Tree:
        """Return when the tree is ready."""
        nursery.start_soon(self.run)
        await reach(self.root.child, State.RUNNING)
        return self

    async def stop(self, reason: StopReason = SHUTDOWN) -> None:
        self.root.stop(reason)
        await reach(self.root.child, State.ENDED)

    def child(self, id: str) -> Child:
        child = self.supervisor.child(id)
        assert child is not None
        return child

    @property
    def kinds(self) -> list[str]:
        return [h.kind for h in self.happenings]


async def reach(child: Child, state: State, within: float = 300.0) -> None:
    """Wait until a child is in a state."""
    with trio.fail_after(within):
        while child.state is not state:
            await child.change()


async def scribe(
    nursery: trio.Nursery, make: Callable[[], Scribe] = Scribe, **spec: object
) -> tuple[Ref[Protocol], Child, Tree]:
    """A tree of one actor."""
    whole: dict[str, object] = {"id": "scribe", "start": make, "backoff": EVEN, **spec}
    tree = await Tree([ChildSpec(**whole)]).start(nursery)  # type: ignore[arg-type]
    child = tree.child("scribe")
    return child.ref, child, tree


# -- a store ----------------------------------------------------------------------


class Bench:
    """A store whose writer runs in a tree, its log, and what was published."""

    def __init__(
        self, folder: Path, migrations: Sequence[Migrations] = (), *, ring: int = RING
    ) -> None:
        self.database = Database(folder, migrations)
        self.log = EventLog(self.database.epoch, self.database.head, self.database.first, ring=ring)
        self.published: list[Event] = []
        self.on_publish: Callable[[list[Event]], None] = self.published.extend
        self.store = Store(self.database, self._publish)
        self.tree = Tree([ChildSpec("store", self.store.writer, grace=20.0)])

    def _publish(self, events: list[Event]) -> None:
        self.log.publish(events)
        self.on_publish(events)

    async def start(self, nursery: trio.Nursery) -> Bench:
        await self.tree.start(nursery)
        return self

    async def close(self) -> None:
        await self.tree.stop()
        self.store.close()
        self.database.close()

    def rows(self, sql: str) -> list[Row]:
        """What somebody else sees in the file: only what is committed."""
        with closing(sqlite3.connect(self.database.path)) as other:
            return other.execute(sql).fetchall()


def put(tx: Transaction, word: str) -> int:
    """Keep a word, and tell of it."""
    tx.execute("INSERT INTO words (word) VALUES (?)", (word,))
    return tx.emit("word.kept", f"word/{word}", {"word": word})


def words(db: Reading) -> list[str]:
    return [word for (word,) in db.all("SELECT word FROM words ORDER BY rowid")]


word_migrations = Migrations("words")


@word_migrations(name="0001_words")
def _words(db: sqlite_utils.Database) -> None:
    db.execute("CREATE TABLE words (word TEXT PRIMARY KEY)")


class Gate:
    """A command that keeps the writer's thread busy until it is opened."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._open = threading.Event()

    def __call__(self, _tx: Transaction) -> None:
        self._token.run_sync_soon(self.entered.set)
        assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()
