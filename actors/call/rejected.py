"""Calls that a voice gateway did not take, as it reports them."""

from __future__ import annotations

from typing import Any

import msgspec

from supervisor.event import timestamp
from supervisor.transaction import Reading, Transaction

Json = dict[str, Any]


class Rejection(msgspec.Struct, frozen=True):
    """One. `body` is the report as it came; `code` of its error."""

    number: int
    occurred_at: str
    provider: str
    provider_call_id: str
    phone_number: str
    caller: str
    callee: str
    tenant_id: str
    code: str
    body: Json
    created_at: str


_COLUMNS = ", ".join(Rejection.__struct_fields__)


def report(tx: Transaction, new: Rejection) -> int:
    """Keep a report; its number. The same again changes nothing."""
    known = tx.value(
        "SELECT number FROM call_rejections WHERE provider = ? AND provider_call_id = ?"
        " AND code = ? AND occurred_at = ?",
        (new.provider, new.provider_call_id, new.code, new.occurred_at),
    )
    if known is not None:
        return int(known)
    number = tx.head + 1  # that of the event that tells of it
    tx.execute(
        f"INSERT INTO call_rejections ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            number,
            new.occurred_at,
            new.provider,
            new.provider_call_id,
            new.phone_number,
            new.caller,
            new.callee,
            new.tenant_id,
            new.code,
            msgspec.json.encode(new.body).decode(),
            timestamp(),
        ),
    )
    tx.emit("call.rejected", f"rejection/{number}", new.body)
    return number


def page(db: Reading, code: str, tenant: str, before: int, limit: int) -> list[Rejection]:
    """The newest first; empty `code` and `tenant` are any."""
    rows = db.all(
        f"SELECT {_COLUMNS} FROM call_rejections WHERE number < ?"  # noqa: S608
        " AND (? = '' OR code = ?) AND (? = '' OR tenant_id = ?) ORDER BY number DESC LIMIT ?",
        (before, code, code, tenant, tenant, limit),
    )
    names = Rejection.__struct_fields__
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return [Rejection(**{**one, "body": msgspec.json.decode(one["body"])}) for one in found]
