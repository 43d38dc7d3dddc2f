"""Calls in progress in the database: a row lives exactly as long as its call.

So whoever comes after a crash knows which ends were never told. The rows are written with the
events, in one transaction.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

from actors.gateway.messages import Json
from supervisor.event import timestamp
from supervisor.transaction import Reading, Transaction

_KEEP = (
    "INSERT INTO gateway_calls (gw_id, call_id, direction, peer, since, established)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (gw_id, call_id) DO "
)
_RINGS = f"{_KEEP} NOTHING"
_ESTABLISHED = f"{_KEEP} UPDATE SET established = excluded.established"


class KeptCall(NamedTuple):
    """A call in progress. `since` and `established` are RFC 3339."""

    call_id: str
    direction: str
    peer: str
    since: str
    established: str | None


def note(tx: Transaction, gw_id: str, kind: str, data: Json) -> None:
    """Keep or remove a call's row, as an event of it says."""
    if kind == "gateway.call_closed":
        tx.execute(
            "DELETE FROM gateway_calls WHERE gw_id = ? AND call_id = ?", (gw_id, data["call_id"])
        )
    elif kind in ("gateway.call_ringing", "gateway.call_established"):
        now, talks = timestamp(), kind == "gateway.call_established"
        tx.execute(
            _ESTABLISHED if talks else _RINGS,
            (
                gw_id,
                data["call_id"],
                data["direction"],
                data["peer"],
                now,
                now if talks else None,
            ),
        )


def kept(db: Reading, gw_id: str) -> list[KeptCall]:
    """A gateway's calls in progress, oldest first."""
    rows = db.all(
        "SELECT call_id, direction, peer, since, established FROM gateway_calls"
        " WHERE gw_id = ? ORDER BY since",
        (gw_id,),
    )
    return [KeptCall(*row) for row in rows]


def with_calls(db: Reading) -> list[str]:
    """Gateways that have any."""
    return [gw_id for (gw_id,) in db.all("SELECT DISTINCT gw_id FROM gateway_calls")]


def close_all(tx: Transaction, gw_id: str, reason: str) -> None:
    """Tell the end of all calls whose end nobody saw.

    How long such a call was is known up to the last event of its gateway, and told so.
    """
    calls = kept(tx, gw_id)
    if not calls:
        return
    subject = f"gateway/{gw_id}"
    last = tx.value("SELECT ts FROM events WHERE subject = ? ORDER BY seq DESC LIMIT 1", (subject,))
    for call in calls:
        lasted = max(seconds_between(call.established, last or call.established), 0.0)
        data = {
            "call_id": call.call_id,
            "direction": call.direction,
            "peer": call.peer,
            "reason": reason,
            "seconds": round(lasted, 3),
        }
        tx.emit("gateway.call_closed", subject, data)
    tx.execute("DELETE FROM gateway_calls WHERE gw_id = ?", (gw_id,))


def seconds_between(first: str | None, second: str | None) -> float:
    """From one timestamp to another; 0 where one is missing."""
    if first is None or second is None:
        return 0.0
    parse = datetime.datetime.fromisoformat
    return (parse(second) - parse(first)).total_seconds()
