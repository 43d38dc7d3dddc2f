"""Idempotency keys: the same key and body give the same answer, also after a restart.

A key belongs to a caller and an operation. An answer is kept before it is sent; one of 500 and
above is not, because trying again is what the client should do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import trio

from api.errors import ApiError
from supervisor.event import timestamp
from supervisor.store import Store
from supervisor.transaction import Reading, Transaction

MAX_KEY = 200

Kept = tuple[int, bytes]
Place = tuple[str, str, str]


class Idempotency:
    """Keys under way are in memory, answers in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: dict[Place, tuple[str, trio.Event]] = {}

    async def once(
        self, place: Place, body: bytes, run: Callable[[], Awaitable[Kept]]
    ) -> tuple[Kept, bool]:
        """Run it, or give the answer it had before: ((status, body), was it before).

        `place` is (caller, operation, key). Raises ApiError 409 for another body under the same
        key, 400 for a key that is none. Two at once: the second waits for the first.
        """
        key = place[2]
        if not 0 < len(key) <= MAX_KEY or not key.isprintable():
            raise ApiError(400, "invalid", f"Idempotency-Key: 1 to {MAX_KEY} printable characters")
        fingerprint = hashlib.sha256(body).hexdigest()
        while place in self._under_way:
            theirs, done = self._under_way[place]
            _compare(theirs, fingerprint)
            await done.wait()
        done = trio.Event()
        self._under_way[place] = (fingerprint, done)
        try:
            before = await self._store.read(_find, place)
            if before is not None:
                _compare(before[0], fingerprint)
                return (before[1], before[2]), True
            status, answer = await run()
            if status < 500:
                await self._store.write(_keep, place, fingerprint, status, answer)
            return (status, answer), False
        finally:
            del self._under_way[place]
            done.set()


def _compare(kept: str, given: str) -> None:
    if kept != given:
        raise ApiError(409, "key_reused", "this Idempotency-Key was used with another body")


def _find(db: Reading, place: Place) -> tuple[str, int, bytes] | None:
    row = db.one(
        "SELECT fingerprint, status, body FROM idempotency"
        " WHERE caller = ? AND operation = ? AND key = ?",
        place,
    )
    return None if row is None else (row[0], row[1], row[2].encode())


def _keep(tx: Transaction, place: Place, fingerprint: str, status: int, body: bytes) -> None:
    tx.execute(
        "INSERT INTO idempotency (caller, operation, key, fingerprint, status, body, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*place, fingerprint, status, body.decode(), timestamp()),
    )


def forget_old(tx: Transaction, before: str, limit: int) -> int:
    """Delete up to `limit` answers older than a time; how many."""
    return tx.execute(
        "DELETE FROM idempotency WHERE rowid IN"
        " (SELECT rowid FROM idempotency WHERE created < ? ORDER BY created LIMIT ?)",
        (before, limit),
    )
