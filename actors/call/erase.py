"""Forgetting calls: what retention is over for, and all that there is of one caller.

With a call go its events, also in the log (they stay as numbers without content, for a log has no
holes), its files, and what webhooks were to tell of it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from actors.call import linked, records
from actors.call.messages import Json
from config.model import Calls
from config.runtime import Runtime, is_e164
from supervisor.bus import ERASED, EventLog
from supervisor.errors import Rejected
from supervisor.event import Event, timestamp
from supervisor.log import logger
from supervisor.store import Store
from supervisor.transaction import Reading, Transaction

# Calls in one transaction, and events of the log looked through at once.
AT_ONCE = 5
LOOKED_AT = 5000
# Fewer digits than these are found in too much else.
LEAST_DIGITS = 7

_ERASED = bytes(ERASED).decode()


# -- retention ----------------------------------------------------------------------------


def forget_old(
    runtime: Callable[[], Runtime], settings: Callable[[], Calls], gone: Callable[[str], None]
) -> Callable[[Transaction, str, int], int]:
    """A rule of retention: each tenant's calls for as long as its `retention_days`.

    `gone` is told the id of each.
    """

    def forget_some(tx: Transaction, _before: str, limit: int) -> int:
        tenants = runtime().tenants
        days = {name: tenant.logging.retention_days for name, tenant in tenants.items()}
        count = 0
        for (tenant,) in tx.all("SELECT DISTINCT tenant_id FROM calls WHERE closed_at IS NOT NULL"):
            if tenant and tenant not in days:
                # A file that is missing at a reload must not cost what cannot be brought back.
                continue
            kept = days.get(tenant, settings().retention_days)
            if kept <= 0:
                continue
            before = timestamp(datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=kept))
            for (call_id,) in tx.all(
                "SELECT call_id FROM calls WHERE tenant_id = ? AND closed_at < ?"
                " ORDER BY closed_at LIMIT ?",
                (tenant, before, AT_ONCE - count),
            ):
                forget(tx, call_id)
                gone(call_id)
                count += 1
            if count >= AT_ONCE:
                # As many as were asked for: there may be more.
                return limit
        return 0

    return forget_some


def forget_rejections(tx: Transaction, before: str, limit: int) -> int:
    """A rule of retention for calls that were not taken."""
    return tx.execute(
        "DELETE FROM call_rejections WHERE number IN (SELECT number FROM call_rejections"
        " WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (before, limit),
    )


def forget(tx: Transaction, call_id: str) -> tuple[int, int]:
    """A call goes, with its events and files: (events, recordings and tasks)."""
    call = records.load(tx, call_id)
    if call is None:
        return 0, 0
    files = linked.forget_files(tx, call)
    events = tx.execute("DELETE FROM call_events WHERE call = ?", (call.number,))
    tx.execute("DELETE FROM calls WHERE number = ?", (call.number,))
    subject = f"call/{call_id}"
    tx.execute("UPDATE events SET data = ? WHERE subject = ?", (_ERASED, subject))
    tx.execute("UPDATE webhook_deliveries SET data = ? WHERE subject = ?", (_ERASED, subject))
    return events, files


# -- one caller -----------------------------------------------------------------------------


def call_ids(db: Reading, number: str) -> list[str]:
    """All calls from or to a number."""
    rows = db.all("SELECT call_id FROM calls WHERE caller = ? OR callee = ?", (number, number))
    return [call_id for (call_id,) in rows]


class Eraser:
    """Erases one caller's data; `sweep` deletes the folders of tasks that are no more."""

    def __init__(
        self,
        store: Store,
        log: EventLog,
        runtime: Callable[[], Runtime],
        sweep: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._log = log
        self._runtime = runtime
        self._sweep = sweep
        self._gone: list[str] = []

    def gone(self, call_id: str) -> None:
        """A call is forgotten: so it is to go from the memory of the log. In any thread."""
        self._gone.append(call_id)

    async def forget_in_memory(self) -> None:
        """All that are gone go from the memory of the log too."""
        gone, self._gone = self._gone, []
        if gone:
            subjects = {f"call/{call_id}" for call_id in gone}
            self._log.erase(lambda event: event.subject in subjects)

    async def check(self, number: str) -> None:
        """Raises Rejected `conflict` where it is a tenant's own, or something still works on it."""
        for key, phone in self._runtime().phone_numbers.items():
            if phone.number.removeprefix("+") == number.removeprefix("+"):
                raise Rejected(
                    "conflict",
                    f"{number} is the phone number {key!r} of tenant {phone.tenant!r}",
                    {"action": "erase by the number of a caller"},
                )
        if working := await self._store.read(_working, number):
            raise Rejected(
                "conflict",
                f"of one of the calls an egress task is still at work: {working}",
                {"action": "stop it, and erase when it has ended"},
            )

    async def erase(self, number: str, by: str) -> Json:
        """All of it, in small steps; what was erased is counted, and nothing else is kept."""
        counts = {"calls": 0, "events": 0, "rejections": 0, "files": 0}
        subjects: set[str] = set()
        while some := (await self._store.read(call_ids, number))[:AT_ONCE]:
            events, files = await self._store.write(_forget_some, some)
            counts["calls"] += len(some)
            counts["events"] += events
            counts["files"] += files
            subjects |= {f"call/{call_id}" for call_id in some}
        self._log.erase(lambda event: event.subject in subjects)
        while numbers := await self._store.write(_forget_rejections_of, number, LOOKED_AT):
            counts["rejections"] += len(numbers)
            self._log.erase(_among(set(numbers)))
        await self._erase_mentions(number)
        await self._sweep()
        erased_at = await self._store.write(_note, counts, by)
        # What was overwritten is still in the journal until that begins anew.
        await trio.to_thread.run_sync(self._store.database.begin_journal_anew)
        logger.info("caller_erased", **counts)
        return {"erased_at": erased_at, **counts}

    async def _erase_mentions(self, number: str) -> None:
        """Whatever else of the log has the number in it: a gateway's calls, for one."""
        digits = number.removeprefix("+")
        if len(digits) < LEAST_DIGITS or not is_e164(number):
            # An extension, a word: found in too much else.
            return
        after = 0
        while after < self._log.head:
            upto, found = await self._store.read(_mentions, after, digits)
            if found:
                await self._store.write(_blank, found)
                self._log.erase(_among(set(found)))
            if upto <= after:
                break
            after = upto
        first = -1
        while following := await self._store.read(_next_calls, first):
            first = following[-1]
            said = await self._store.read(_said_in, following, digits)
            if said.events or said.timelines:
                await self._store.write(_blank_said, said)
        await self._store.write(_blank_told, *await self._store.read(_told_in, digits))


def _among(seqs: set[int]) -> Callable[[Event], bool]:
    return lambda event: event.seq in seqs


def _forget_some(tx: Transaction, ids: list[str]) -> tuple[int, int]:
    done = [forget(tx, call_id) for call_id in ids]
    return sum(events for events, _ in done), sum(files for _, files in done)


def _forget_rejections_of(tx: Transaction, number: str, limit: int) -> list[int]:
    """Some of them; their numbers, which are those of the events that told of them."""
    rows = tx.all(
        "SELECT number FROM call_rejections WHERE caller = ? OR callee = ? LIMIT ?",
        (number, number, limit),
    )
    numbers = [found for (found,) in rows]
    # By their numbers: in what was reported it may be written in another way.
    tx.execute_many("DELETE FROM call_rejections WHERE number = ?", [(n,) for n in numbers])
    _blank(tx, numbers)
    told = [(_ERASED, f"rejection/{n}") for n in numbers]
    tx.execute_many("UPDATE webhook_deliveries SET data = ? WHERE subject = ?", told)
    return numbers


def _mentions(db: Reading, after: int, digits: str) -> tuple[int, list[int]]:
    """Numbers of events that have these digits: (last one looked at, those)."""
    upto = db.value(
        "SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > ? ORDER BY seq LIMIT ?)",
        (after, LOOKED_AT),
    )
    if upto is None:
        return after, []
    rows = db.all(
        "SELECT seq, data FROM events WHERE seq > ? AND seq <= ? AND instr(data, ?) > 0",
        (after, upto, digits),
    )
    return int(upto), [seq for seq, data in rows if _has(data, digits)]


def _has(text: str, digits: str) -> bool:
    """Is the number in it, and not only a longer one?"""
    return re.search(rf"(?<!\d){digits}(?!\d)", text) is not None


def _working(db: Reading, number: str) -> str:
    """A task that still works on a call of a number, if there is one."""
    for call_id in call_ids(db, number):
        call = records.load(db, call_id)
        if call is not None and (task_id := linked.working(db, call)):
            return task_id
    return ""


def _next_calls(db: Reading, after: int) -> list[int]:
    """The numbers of the next calls, oldest first."""
    rows = db.all(
        "SELECT number FROM calls WHERE number > ? ORDER BY number LIMIT ?", (after, AT_ONCE)
    )
    return [number for (number,) in rows]


@dataclass(slots=True)
class _Said:
    """What of others' calls has a number in it."""

    events: list[tuple[int, int]]
    timelines: list[int]


def _said_in(db: Reading, calls: list[int], digits: str) -> _Said:
    events = db.all(
        "SELECT call, place, payload, key FROM call_events WHERE call >= ? AND call <= ?"
        " AND (instr(payload, ?) > 0 OR instr(key, ?) > 0)",
        (calls[0], calls[-1], digits, digits),
    )
    timelines = db.all(
        "SELECT number, timeline FROM calls WHERE number >= ? AND number <= ?"
        " AND instr(timeline, ?) > 0",
        (calls[0], calls[-1], digits),
    )
    return _Said(
        [(c, p) for c, p, data, key in events if _has(data, digits) or _has(key, digits)],
        [number for number, data in timelines if _has(data, digits)],
    )


def _blank_said(tx: Transaction, said: _Said) -> None:
    # The key goes as well: it may have been made of the number.
    tx.execute_many(
        "UPDATE call_events SET payload = ?, key = 'erased:' || place WHERE call = ? AND place = ?",
        [(_ERASED, call, place) for call, place in said.events],
    )
    tx.execute_many(
        "UPDATE calls SET timeline = NULL WHERE number = ?", [(n,) for n in said.timelines]
    )
    tx.execute_many(
        "UPDATE calls SET summary = NULL WHERE number = ?", [(call,) for call, _ in said.events]
    )


def _told_in(db: Reading, digits: str) -> tuple[list[tuple[str, int]], list[int]]:
    """Deliveries of webhooks, and rejections, that have the number."""
    deliveries = db.all(
        "SELECT endpoint, seq, data FROM webhook_deliveries WHERE instr(data, ?) > 0", (digits,)
    )
    reports = db.all("SELECT number, body FROM call_rejections WHERE instr(body, ?) > 0", (digits,))
    return (
        [(endpoint, seq) for endpoint, seq, data in deliveries if _has(data, digits)],
        [number for number, body in reports if _has(body, digits)],
    )


def _blank_told(tx: Transaction, deliveries: list[tuple[str, int]], reports: list[int]) -> None:
    tx.execute_many(
        "UPDATE webhook_deliveries SET data = ? WHERE endpoint = ? AND seq = ?",
        [(_ERASED, endpoint, seq) for endpoint, seq in deliveries],
    )
    tx.execute_many(
        "UPDATE call_rejections SET body = ? WHERE number = ?", [(_ERASED, n) for n in reports]
    )


def _blank(tx: Transaction, seqs: list[int]) -> None:
    tx.execute_many("UPDATE events SET data = ? WHERE seq = ?", [(_ERASED, s) for s in seqs])


def _note(tx: Transaction, counts: dict[str, int], by: str) -> str:
    now = timestamp()
    tx.execute(
        "INSERT INTO erasures (number, erased_at, by_whom, calls, events, rejections, files)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            tx.head + 1,
            now,
            by,
            counts["calls"],
            counts["events"],
            counts["rejections"],
            counts["files"],
        ),
    )
    tx.emit("privacy.erased", "system/privacy", counts)
    return now


def erasures(db: Reading, before: int, limit: int) -> list[Json]:
    """What was erased when and by whom, the newest first; not of whom."""
    names = ("number", "erased_at", "by", "calls", "events", "rejections", "files")
    rows = db.all(
        "SELECT number, erased_at, by_whom, calls, events, rejections, files FROM erasures"
        " WHERE number < ? ORDER BY number DESC LIMIT ?",
        (before, limit),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]
