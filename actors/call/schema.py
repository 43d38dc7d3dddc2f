"""The tables of calls."""

from __future__ import annotations

import sqlite_utils
from sqlite_utils import Migrations

migrations = Migrations("calls")


@migrations(name="0001_calls")
def _calls(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE calls (
            number INTEGER PRIMARY KEY,
            call_id TEXT NOT NULL UNIQUE,
            provider TEXT NOT NULL,
            provider_call_id TEXT NOT NULL,
            provider_stream_id TEXT NOT NULL,
            phone_number_id TEXT NOT NULL,
            tenant_id TEXT NOT NULL,
            agent_id TEXT NOT NULL,
            agent_version INTEGER,
            from_number TEXT NOT NULL,
            to_number TEXT NOT NULL,
            caller TEXT NOT NULL,
            callee TEXT NOT NULL,
            started_at TEXT NOT NULL,
            ended_at TEXT,
            status TEXT NOT NULL,
            guessed INTEGER NOT NULL,
            reason TEXT NOT NULL,
            duration_seconds REAL,
            duration_computed REAL,
            start_hash TEXT NOT NULL,
            end_hash TEXT NOT NULL,
            artifacts TEXT NOT NULL,
            timeline TEXT,
            summary TEXT,
            outcome TEXT NOT NULL,
            events INTEGER NOT NULL,
            created_at TEXT NOT NULL,
            closed_at TEXT,
            UNIQUE (provider, provider_call_id)
        )
        """
    )
    # However many there once were, the start looks at those that are live.
    db.execute("CREATE INDEX calls_live ON calls (number) WHERE status = 'in_progress'")
    db.execute("CREATE INDEX calls_tenant ON calls (tenant_id, number)")
    db.execute("CREATE INDEX calls_phone_number ON calls (phone_number_id, number)")
    db.execute("CREATE INDEX calls_caller ON calls (caller, number)")
    db.execute("CREATE INDEX calls_callee ON calls (callee, number)")
    db.execute("CREATE INDEX calls_closed ON calls (tenant_id, closed_at)")
    db.execute(
        "CREATE INDEX calls_to_sum_up ON calls (number)"
        " WHERE closed_at IS NOT NULL AND summary IS NULL"
    )
    db.execute(
        """
        CREATE TABLE call_events (
            call INTEGER NOT NULL,
            place INTEGER NOT NULL,
            ts TEXT NOT NULL,
            type TEXT NOT NULL,
            payload TEXT NOT NULL,
            key TEXT NOT NULL,
            UNIQUE (call, key)
        )
        """
    )


@migrations(name="0002_rejections_and_erasures")
def _rejections(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE call_rejections (
            number INTEGER PRIMARY KEY,
            occurred_at TEXT NOT NULL,
            provider TEXT NOT NULL,
            provider_call_id TEXT NOT NULL,
            phone_number TEXT NOT NULL,
            caller TEXT NOT NULL,
            callee TEXT NOT NULL,
            tenant_id TEXT NOT NULL,
            code TEXT NOT NULL,
            body TEXT NOT NULL,
            created_at TEXT NOT NULL,
            UNIQUE (provider, provider_call_id, code, occurred_at)
        )
        """
    )
    db.execute("CREATE INDEX call_rejections_caller ON call_rejections (caller)")
    db.execute("CREATE INDEX call_rejections_created ON call_rejections (created_at)")
    db.execute(
        """
        CREATE TABLE erasures (
            number INTEGER PRIMARY KEY,
            erased_at TEXT NOT NULL,
            by_whom TEXT NOT NULL,
            calls INTEGER NOT NULL,
            events INTEGER NOT NULL,
            rejections INTEGER NOT NULL,
            files INTEGER NOT NULL
        )
        """
    )
