"""Leases: who may work on what, for how long, and a number that tells the late from the new.

The one boundary between work that is queued and those who do it. A claim takes a lease; its holder
renews it, and shows it with every result (`hold`): one whose lease was ended, or taken by another,
is refused. That its time is over lets others take or end it; until one has, it is in force: a disk
that took no writes for a minute costs nobody a lease. All of it is one row for each piece of work
and plain SQL, so that another engine, or several nodes on one, can stand behind it. Knows nothing
of what is leased.

Times are seconds as `Clock.now` gives them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import sqlite_utils
import trio
from sqlite_utils import Migrations

from supervisor.errors import Rejected
from supervisor.transaction import Reading, Transaction

migrations = Migrations("lease")


@migrations(name="0001_leases")
def _leases(db: sqlite_utils.Database) -> None:
    # The row stays when nobody holds the lease: the fencing number must go on rising.
    db.execute(
        """
        CREATE TABLE leases (
            kind TEXT NOT NULL,
            id TEXT NOT NULL,
            fence INTEGER NOT NULL,
            node TEXT NOT NULL,
            boot INTEGER NOT NULL,
            until REAL NOT NULL,
            held INTEGER NOT NULL,
            PRIMARY KEY (kind, id)
        )
        """
    )
    db.execute("CREATE INDEX leases_held ON leases (kind, until) WHERE held = 1")


class Clock:
    """Wall-clock time that goes on evenly: the wall clock is read once, at the start.

    A clock that is set while the appliance runs must neither end every lease at once nor keep them
    for ever. To be made where trio runs: it goes by trio's clock, which tests can drive.
    """

    def __init__(self) -> None:
        self._offset = time.time() - trio.current_time()

    def now(self) -> float:
        """Seconds since 1970, as far as the wall clock was right at the start."""
        return trio.current_time() + self._offset


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one thing. `fence` is higher than any before it for the same thing."""

    kind: str
    id: str
    fence: int
    node: str
    boot: int


class LeaseLost(Rejected):
    """Another holds it by now, or it was ended: the result is refused."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            "lease_lost", f"lease {lease.fence} of {lease.kind} {lease.id} is not in force any more"
        )
        self.lease = lease

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.lease,)


def take(
    tx: Transaction, kind: str, id: str, node: str, boot: int, now: float, seconds: float
) -> Lease | None:
    """Take a lease that nobody holds, or whose time is over; None when somebody holds it."""
    row = tx.one("SELECT fence, held, until FROM leases WHERE kind = ? AND id = ?", (kind, id))
    if row is not None and row[1] and row[2] > now:
        return None
    fence = 1 if row is None else int(row[0]) + 1
    tx.execute(
        "INSERT INTO leases (kind, id, fence, node, boot, until, held) VALUES (?, ?, ?, ?, ?, ?, 1)"
        " ON CONFLICT (kind, id) DO UPDATE SET fence = excluded.fence, node = excluded.node,"
        " boot = excluded.boot, until = excluded.until, held = 1",
        (kind, id, fence, node, boot, now + seconds),
    )
    return Lease(kind, id, fence, node, boot)


def renew(tx: Transaction, lease: Lease, now: float, seconds: float) -> None:
    """Make it last `seconds` from now. Raises LeaseLost."""
    hold(tx, lease)
    tx.execute(
        "UPDATE leases SET until = ? WHERE kind = ? AND id = ?",
        (now + seconds, lease.kind, lease.id),
    )


def hold(tx: Transaction, lease: Lease) -> None:
    """Raise LeaseLost unless it is in force: the first line of every transaction of a holder."""
    row = tx.one("SELECT fence, held FROM leases WHERE kind = ? AND id = ?", (lease.kind, lease.id))
    if row is None or row[0] != lease.fence or not row[1]:
        raise LeaseLost(lease)


def release(tx: Transaction, lease: Lease) -> None:
    """Give it back; giving back one that is lost changes nothing."""
    tx.execute(
        "UPDATE leases SET held = 0 WHERE kind = ? AND id = ? AND fence = ?",
        (lease.kind, lease.id, lease.fence),
    )


def run_out(db: Reading, kind: str, now: float, limit: int = 500) -> list[str]:
    """What is held past its time."""
    rows = db.all(
        "SELECT id FROM leases WHERE kind = ? AND held = 1 AND until <= ? ORDER BY until LIMIT ?",
        (kind, now, limit),
    )
    return [name for (name,) in rows]


def take_back(tx: Transaction, kind: str, node: str, boot: int) -> list[str]:
    """End all leases of this node's earlier boots: nobody of them lives. Which they were."""
    rows = tx.all(
        "SELECT id FROM leases WHERE kind = ? AND held = 1 AND node = ? AND boot <> ?",
        (kind, node, boot),
    )
    tx.execute(
        "UPDATE leases SET held = 0 WHERE kind = ? AND held = 1 AND node = ? AND boot <> ?",
        (kind, node, boot),
    )
    return [name for (name,) in rows]


def end(tx: Transaction, kind: str, id: str) -> None:
    """End a lease, whoever holds it: its owner is dead. Its results are refused from now on."""
    tx.execute("UPDATE leases SET held = 0 WHERE kind = ? AND id = ?", (kind, id))


def forget(tx: Transaction, kind: str, id: str) -> None:
    """The thing itself is gone."""
    tx.execute("DELETE FROM leases WHERE kind = ? AND id = ?", (kind, id))
