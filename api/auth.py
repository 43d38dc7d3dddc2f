"""Tokens and scopes: who may do what."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import trio

from config.model import Auth


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token names, and what it allows."""

    name: str
    scopes: frozenset[str]

    def allows(self, needed: str) -> bool:
        """`gateway:ro` is allowed by `gateway:ro`, `gateway:rw`, `gateway:*`, `read:*` and `*`."""
        return any(covers(scope, needed) for scope in self.scopes)


ANONYMOUS = Identity("anonymous", frozenset())


def covers(scope: str, needed: str) -> bool:
    """Does one scope contain another?"""
    if scope in ("*", needed):
        return True
    *kind, level = needed.split(":")
    if scope == "read:*":
        return level == "ro"
    *having, allowed = scope.split(":")
    if having != kind[: len(having)]:
        return False
    return allowed in ("*", "rw") or allowed == level


def digest(token: str) -> str:
    """What is kept of a token: its SHA-256, in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Authenticator:
    """All tokens, of the file and of the store, by digest."""

    def __init__(self) -> None:
        self._configured: dict[str, Identity] = {}
        self._stored: dict[str, Identity] = {}
        self._anonymous: frozenset[str] = frozenset()
        self._change = trio.Event()

    def configure(self, auth: Auth) -> None:
        """Take the configuration's tokens and open surfaces, in place of earlier ones."""
        self._configured = {
            t.sha256 or digest(t.token or ""): Identity(t.name, frozenset(t.scopes))
            for t in auth.tokens
        }
        self._anonymous = frozenset(auth.anonymous)
        self._changed()

    def store_holds(self, tokens: dict[str, Identity]) -> None:
        """Take the store's tokens, in place of earlier ones."""
        self._stored = dict(tokens)
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()

    async def changed(self) -> None:
        """Return when tokens or open surfaces are others than now."""
        await self._change.wait()

    def is_open(self, surface: str) -> bool:
        """Does the configuration open this surface to everybody?"""
        return surface in self._anonymous

    def identify(self, token: str | None) -> Identity | None:
        """Whom a token names. All digests are compared, each in constant time."""
        if not token:
            return None
        wanted = digest(token)
        found = None
        for known in (self._configured, self._stored):
            for held, identity in known.items():
                if hmac.compare_digest(held, wanted):
                    found = identity
        return found


def bearer(authorization: str) -> str | None:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
