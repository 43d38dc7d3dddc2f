"""The appliance's own operations: health, the tree, reload, restarts, tokens, backup."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio

from actors.reconcile import Reload, Reloaded
from api import tokens
from api.auth import Authenticator, covers
from api.errors import SYSTEM, ApiError
from api.operation import Answer, Call, Nothing, Operation
from api.tokens import TokenView
from config import VERSION
from config.check import is_scope
from supervisor.bus import EventLog
from supervisor.child import Child
from supervisor.event import timestamp
from supervisor.inspect import Node, inspect, quarantined_paths, stuck_paths
from supervisor.ref import Ref
from supervisor.spec import Cause, StopReason
from supervisor.store import Store
from supervisor.tree import Supervisor

RELOAD_TIMEOUT = 30.0
# A time as part of a file name.
_PLAIN = str.maketrans("", "", "-:.")
RESTART_TIMEOUT = 30.0

Scope = Annotated[str, msgspec.Meta(max_length=128)]


@dataclass(slots=True)
class Appliance:
    """What these operations look at.

    `concerns` names what an operator should look at and the runtime does not know of.
    """

    root: Child
    store: Store
    log: EventLog
    authenticator: Authenticator
    reconciler: Ref[Reload]
    folder: Path
    started: float
    counts: Callable[[], dict[str, int]]
    document: Callable[[], bytes]
    concerns: Callable[[], list[str]] = list


class Alive(msgspec.Struct):
    """`healthy`, for as long as the process answers."""

    status: str


class Health(msgspec.Struct):
    """`status` is `ok` or `degraded`; `problems` says what an operator should look at."""

    status: str
    problems: list[str]
    uptime: float


class Ready(msgspec.Struct):
    """`waiting` names what is not running yet."""

    ready: bool
    waiting: list[str]


class Version(msgspec.Struct):
    """The first four fields are those of contracts/telemetry.md."""

    title: str
    version: str
    description: str
    copyright: str
    epoch: str
    boot: int
    head: str


class Tree(msgspec.Struct):
    """Everything that runs, and what the parts around it count."""

    tree: Node
    uptime: float
    counts: dict[str, int]


class ReloadRequest(msgspec.Struct):
    """`dry`: only say what would change."""

    dry: bool = False


class Restarted(msgspec.Struct):
    """The actor's state after the restart."""

    path: str
    state: str
    restarts: int


class TokenRequest(msgspec.Struct):
    """A token to make. Scopes: `gateway:ro`, `gateway:rw`, `events:ro`, `system:rw`, `*`, …"""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)")]
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1, max_length=64)]


class TokenMade(msgspec.Struct):
    """The token itself is shown this once."""

    name: str
    scopes: list[str]
    token: str


class Tokens(msgspec.Struct):
    """All tokens of the store; those of the configuration file are not among them."""

    tokens: list[TokenView]


class Revoked(msgspec.Struct):
    """The name of the token that is no more."""

    revoked: str


class BackupRequest(msgspec.Struct):
    """A plain file name; the backup is written to the state folder's `backups`."""

    name: (
        Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$(?!\n)")] | None
    ) = None


class BackupMade(msgspec.Struct):
    """Where the backup is, and its size in bytes."""

    file: str
    size: int


class SystemApi:
    """The handlers."""

    def __init__(self, appliance: Appliance) -> None:
        self._it = appliance

    # -- open to everybody ----------------------------------------------------

    async def health(self, call: Call[Nothing, Nothing]) -> Answer:
        """GET /healthz: 200, or 503 when something needs an operator."""
        del call
        problems = self._problems()
        status = "degraded" if problems else "ok"
        body = Health(status, problems, round(time.time() - self._it.started, 3))
        return Answer(body, 503 if self._it.store.failing else 200)

    def _problems(self) -> list[str]:
        store = self._it.store
        found = []
        if store.failing:
            found.append(f"writes are refused since {store.failing_since}: {store.failing}")
        if store.damaged:
            found.append(f"the database is damaged: {store.damaged}; restore a backup")
        found += [f"quarantined: {path}" for path in quarantined_paths(self._it.root)]
        found += [f"stuck: {path}" for path in stuck_paths(self._it.root)]
        found += self._it.concerns()
        return found

    async def alive(self, call: Call[Nothing, Nothing]) -> Alive:
        """GET /health, as contracts/telemetry.md has it."""
        del call
        return Alive("healthy")

    async def ready(self, call: Call[Nothing, Nothing]) -> Answer:
        """GET /readyz: 200 once everything that starts with the appliance runs."""
        del call
        top = self._it.root.service
        children = list(top.children()) if isinstance(top, Supervisor) else []
        waiting = [c.path for c in children if c.state.value != "running"]
        body = Ready(not waiting and self._it.root.state.value == "running", waiting)
        return Answer(body, 200 if body.ready else 503)

    async def version(self, call: Call[Nothing, Nothing]) -> Version:
        """GET /version."""
        del call
        it = self._it
        return Version(
            title="Switchboard",
            version=VERSION,
            description="Supervises SIP media gateways: their calls, recordings and streams",
            copyright="© 2026 the Switchboard authors",
            epoch=it.log.epoch,
            boot=it.store.database.boot,
            head=it.log.token(),
        )

    async def openapi(self, call: Call[Nothing, Nothing]) -> Answer:
        """GET /openapi.json."""
        del call
        return Answer(self._it.document())

    # -- for operators --------------------------------------------------------

    async def tree(self, call: Call[Nothing, Nothing]) -> Tree:
        """GET /system/tree."""
        del call
        uptime = round(time.time() - self._it.started, 3)
        return Tree(await inspect(self._it.root), uptime, self._it.counts())

    async def reload(self, call: Call[Nothing, ReloadRequest]) -> Reloaded:
        """POST /system/reload."""
        return await self._it.reconciler.ask(Reload(call.body.dry), RELOAD_TIMEOUT)

    async def restart(self, call: Call[Nothing, Nothing]) -> Restarted:
        """POST /system/actors/<path>/restart."""
        child = self._find(call.params["actor"])
        reason = StopReason(Cause.BY_HAND, f"asked for by {call.caller}")
        with trio.move_on_after(RESTART_TIMEOUT):
            await child.restart(reason)
        return Restarted(child.path, child.state.value, child.restarts)

    def _find(self, path: str) -> Child:
        at = self._it.root
        for part in path.strip("/").split("/"):
            service = at.service
            below = service.child(part) if isinstance(service, Supervisor) else None
            if below is None:
                raise ApiError(404, "not_found", f"there is no actor /{path.strip('/')[:200]}")
            at = below
        if at.spec.significant and at.spec.id == "api":
            raise ApiError(409, "conflict", "the listeners are what this request came through")
        return at

    async def tokens(self, call: Call[Nothing, Nothing]) -> Tokens:
        """GET /system/tokens."""
        del call
        return Tokens(await self._it.store.read(tokens.everything))

    async def make_token(self, call: Call[Nothing, TokenRequest]) -> TokenMade:
        """POST /system/tokens."""
        request = call.body
        for scope in request.scopes:
            if not is_scope(scope):
                raise ApiError(422, "invalid", f"{scope!r} is no scope: kind:ro, kind:rw or *")
            if not any(covers(own, scope) for own in call.identity.scopes):
                raise ApiError(403, "forbidden", f"{call.caller!r} cannot give {scope!r} away")
        token = tokens.fresh()
        if not await self._it.store.write(tokens.add, request.name, token, request.scopes):
            raise ApiError(409, "conflict", f"a token {request.name!r} exists already")
        await self._refresh()
        return TokenMade(request.name, request.scopes, token)

    async def revoke_token(self, call: Call[Nothing, Nothing]) -> Revoked:
        """DELETE /system/tokens/<name>."""
        name = call.params["name"]
        if not await self._it.store.write(tokens.revoke, name):
            raise ApiError(404, "not_found", f"there is no token {name[:80]!r}")
        await self._refresh()
        return Revoked(name)

    async def _refresh(self) -> None:
        self._it.authenticator.store_holds(await self._it.store.read(tokens.identities))

    async def backup(self, call: Call[Nothing, BackupRequest]) -> BackupMade:
        """POST /system/backup."""
        name = call.body.name or f"switchboard-{timestamp().translate(_PLAIN)}.db"
        folder = (self._it.folder / "backups").absolute()
        target = folder / name
        if target.exists():
            raise ApiError(409, "conflict", f"{name} exists already")

        def copy() -> int:
            folder.mkdir(exist_ok=True, mode=0o700)
            self._it.store.database.backup(target)
            return target.stat().st_size

        try:
            size = await trio.to_thread.run_sync(copy)
        except OSError as error:
            raise ApiError(507, "insufficient_storage", str(error)) from error
        return BackupMade(str(target), size)

    # -- the table ------------------------------------------------------------

    def operations(self) -> list[Operation]:
        """The rows of the table."""

        def row(
            id: str,
            method: str,
            path: str,
            handler: Callable[..., Awaitable[Any]],
            answer: Any,
            **more: Any,
        ) -> Operation:
            summary = (handler.__doc__ or "").partition(": ")[2] or more.pop("summary", "")
            more.pop("summary", None)
            return Operation(
                id=id,
                method=method,
                path=path,
                surface=SYSTEM,
                handler=handler,
                answer=answer,
                summary=summary,
                **more,
            )

        return [
            row("health", "GET", "/healthz", self.health, Health, scope=None, errors=(503,)),
            row(
                "alive",
                "GET",
                "/health",
                self.alive,
                Alive,
                scope=None,
                summary="Is the process there?",
            ),
            row("ready", "GET", "/readyz", self.ready, Ready, scope=None, errors=(503,)),
            row(
                "version",
                "GET",
                "/version",
                self.version,
                Version,
                scope=None,
                summary="Which version, which log, which boot.",
            ),
            row(
                "openapi",
                "GET",
                "/openapi.json",
                self.openapi,
                dict[str, Any],
                scope=None,
                summary="This document.",
            ),
            row(
                "tree",
                "GET",
                "/system/tree",
                self.tree,
                Tree,
                scope="system:ro",
                summary="Everything that runs: state, restarts, mailboxes, times, processes.",
            ),
            row(
                "reload",
                "POST",
                "/system/reload",
                self.reload,
                Reloaded,
                scope="system:rw",
                body=ReloadRequest,
                optional_body=True,
                errors=(409, 422),
                timeout=40.0,
                summary="Load the configuration again and apply the difference.",
            ),
            row(
                "restartActor",
                "POST",
                "/system/actors/{actor:path}/restart",
                self.restart,
                Restarted,
                scope="system:rw",
                errors=(404, 409),
                timeout=40.0,
                summary="Restart an actor, or end its backoff or quarantine.",
            ),
            row(
                "listTokens",
                "GET",
                "/system/tokens",
                self.tokens,
                Tokens,
                scope="system:rw",
                summary="Tokens that were made at run time.",
            ),
            row(
                "makeToken",
                "POST",
                "/system/tokens",
                self.make_token,
                TokenMade,
                scope="system:rw",
                body=TokenRequest,
                errors=(409, 422),
                summary="Make a token; it is shown this once.",
            ),
            row(
                "revokeToken",
                "DELETE",
                "/system/tokens/{name}",
                self.revoke_token,
                Revoked,
                scope="system:rw",
                errors=(404,),
                summary="Revoke a token.",
            ),
            row(
                "backup",
                "POST",
                "/system/backup",
                self.backup,
                BackupMade,
                scope="system:rw",
                body=BackupRequest,
                optional_body=True,
                creates=True,
                errors=(409, 507),
                timeout=600.0,
                summary="Copy the database, while it is in use, to the state folder's backups.",
            ),
        ]
