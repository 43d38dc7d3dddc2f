"""The tables of tasks, their parts, files and uploads, migration by migration."""

from __future__ import annotations

import sqlite_utils
from sqlite_utils import Migrations

migrations = Migrations("egress")


@migrations(name="0001_egress")
def _egress(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE egress_tasks (
            task_id TEXT PRIMARY KEY,
            number INTEGER NOT NULL,
            app_id TEXT NOT NULL,
            request_id TEXT NOT NULL,
            body_hash TEXT NOT NULL,
            cmd TEXT NOT NULL,
            kind TEXT NOT NULL,
            channel TEXT NOT NULL,
            state TEXT NOT NULL,
            action TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            payload TEXT NOT NULL,
            shown TEXT NOT NULL,
            worker_id TEXT NOT NULL,
            retry_count INTEGER NOT NULL,
            claims INTEGER NOT NULL,
            spotlight TEXT NOT NULL,
            created_at TEXT NOT NULL,
            enqueued_at REAL NOT NULL,
            processed_at TEXT,
            completed_at TEXT
        )
        """
    )
    db.execute("CREATE INDEX egress_requests ON egress_tasks (app_id, request_id, number)")
    db.execute("CREATE INDEX egress_numbers ON egress_tasks (app_id, number)")
    # Only what is not over is looked for at the start, however many tasks there once were.
    db.execute(
        "CREATE INDEX egress_open ON egress_tasks (number)"
        " WHERE state IN ('ENQUEUED', 'PROCESSING', 'STOPPING')"
    )
    db.execute("CREATE INDEX egress_completed ON egress_tasks (completed_at)")
    db.execute(
        """
        CREATE TABLE egress_parts (
            task_id TEXT NOT NULL,
            part INTEGER NOT NULL,
            fence INTEGER NOT NULL,
            started TEXT NOT NULL,
            ended TEXT,
            seconds REAL NOT NULL,
            reason TEXT NOT NULL,
            PRIMARY KEY (task_id, part)
        )
        """
    )
    db.execute(
        """
        CREATE TABLE egress_files (
            task_id TEXT NOT NULL,
            name TEXT NOT NULL,
            format TEXT NOT NULL,
            user TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            seconds REAL NOT NULL,
            state TEXT NOT NULL,
            location TEXT NOT NULL,
            created TEXT NOT NULL,
            PRIMARY KEY (task_id, name)
        )
        """
    )


@migrations(name="0002_uploads")
def _uploads(db: sqlite_utils.Database) -> None:
    db.execute(
        """
        CREATE TABLE egress_uploads (
            task_id TEXT NOT NULL,
            name TEXT NOT NULL,
            file TEXT NOT NULL,
            number INTEGER NOT NULL,
            state TEXT NOT NULL,
            upload_id TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            next_try REAL NOT NULL,
            error TEXT NOT NULL,
            PRIMARY KEY (task_id, name)
        )
        """
    )
    db.execute(
        "CREATE INDEX egress_uploads_failed ON egress_uploads (task_id) WHERE state = 'failed'"
    )
    db.execute("CREATE INDEX egress_uploads_due ON egress_uploads (next_try) WHERE state = 'due'")
