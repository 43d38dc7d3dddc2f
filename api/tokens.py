"""Tokens in the store: made, listed and revoked at run time. Only their digests are kept."""

from __future__ import annotations

import secrets

import msgspec
import sqlite_utils
from sqlite_utils import Migrations

from api.auth import Identity, digest
from supervisor.event import timestamp
from supervisor.transaction import Reading, Transaction

migrations = Migrations("api")


@migrations(name="0001_tokens")
def _tokens(db: sqlite_utils.Database) -> None:
    db.execute(
        "CREATE TABLE tokens (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE,"
        " scopes TEXT NOT NULL, created TEXT NOT NULL)"
    )
    db.execute(
        "CREATE TABLE idempotency (caller TEXT NOT NULL, operation TEXT NOT NULL,"
        " key TEXT NOT NULL, fingerprint TEXT NOT NULL, status INTEGER NOT NULL,"
        " body TEXT NOT NULL, created TEXT NOT NULL, PRIMARY KEY (caller, operation, key))"
    )
    db.execute("CREATE INDEX idempotency_created ON idempotency (created)")


class TokenView(msgspec.Struct, frozen=True):
    """A token without the token."""

    name: str
    scopes: list[str]
    created: str


def fresh() -> str:
    """A new token: 256 random bits."""
    return "sb_" + secrets.token_urlsafe(32)


def add(tx: Transaction, name: str, token: str, scopes: list[str]) -> bool:
    """Keep a token's digest; False when the name is taken."""
    changed = tx.execute(
        "INSERT INTO tokens (name, sha256, scopes, created) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO NOTHING",
        (name, digest(token), " ".join(scopes), timestamp()),
    )
    if changed:
        tx.emit("token.created", f"token/{name}", {"name": name, "scopes": scopes})
    return bool(changed)


def add_admin(tx: Transaction, token: str) -> None:
    """The first token, and a note that there was one."""
    add(tx, "admin", token, ["*"])
    tx.execute(
        "INSERT INTO meta (name, value) VALUES ('admin', ?) ON CONFLICT (name) DO NOTHING",
        (timestamp(),),
    )


def had_admin(db: Reading) -> bool:
    """Was the first token made already?"""
    return db.one("SELECT 1 FROM meta WHERE name = 'admin'") is not None


def revoke(tx: Transaction, name: str) -> bool:
    """Forget a token; False when there is none of that name."""
    gone = tx.execute("DELETE FROM tokens WHERE name = ?", (name,))
    if gone:
        tx.emit("token.revoked", f"token/{name}", {"name": name})
    return bool(gone)


def everything(db: Reading) -> list[TokenView]:
    """All tokens of the store."""
    rows = db.all("SELECT name, scopes, created FROM tokens ORDER BY name")
    return [TokenView(name, scopes.split(), created) for name, scopes, created in rows]


def identities(db: Reading) -> dict[str, Identity]:
    """All tokens of the store by digest, for the authenticator."""
    rows = db.all("SELECT sha256, name, scopes FROM tokens")
    return {sha: Identity(name, frozenset(scopes.split())) for sha, name, scopes in rows}
