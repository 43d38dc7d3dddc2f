"""The composition root: the list of children below is the architecture.

The one module that may import from all packages.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from actors import lease as leases
from actors.call import schema as call_schema
from actors.call.erase import Eraser, forget_rejections
from actors.call.erase import forget_old as forget_calls
from actors.call.resolve import Resolver
from actors.call.router import CallRouter
from actors.call.services import Services as CallServices
from actors.call.summaries import Summaries
from actors.egress import records as egress_records
from actors.egress import schema as egress_schema
from actors.egress.library import Library
from actors.egress.messages import QueueMessage
from actors.egress.queue import QueueActor
from actors.egress.services import Services as EgressServices
from actors.egress.sweep import Sweeper
from actors.egress.tail import Tails
from actors.egress.uploader import Poke, Uploader
from actors.gateway import call_records
from actors.gateway import records as gateway_records
from actors.gateway.messages import ProfileChanged, RouterMessage
from actors.gateway.router import Directory, RouterActor
from actors.gateway.services import Services
from actors.lease import Clock
from actors.reconcile import Current, Reconciler, Reload
from actors.retention import Keeper, Rule, Sweep
from actors.webhook import records as webhook_records
from actors.webhook.messages import Apply, WebhookMessage
from actors.webhook.router import WebhookRouter
from actors.webhook.services import Services as WebhookServices
from api import idempotency, server, tokens
from api.app import App
from api.auth import Authenticator, Identity, digest
from api.calls import CallsApi
from api.cli import systemd
from api.cli.base import fail, load_or_exit
from api.dispatch import Dispatcher
from api.egress import EgressApi
from api.gateway import GatewayApi
from api.idempotency import Idempotency
from api.operation import Table
from api.runtime import RuntimeApi
from api.server import Listeners
from api.streams import OPERATION, Streams
from api.system import Appliance, SystemApi
from api.webhooks import WebhookApi
from config.diff import changed_profiles
from config.load import find, load
from config.model import Config
from supervisor import log as logs
from supervisor import orphans
from supervisor.bus import EventLog
from supervisor.child import State
from supervisor.database import Database
from supervisor.errors import ActorDown, AskExpired, Fatal, MailboxFull, Rejected, StartFailed
from supervisor.intensity import Intensity
from supervisor.log import logger
from supervisor.orphans import Registry
from supervisor.ref import Ref
from supervisor.spec import Cause, ChildSpec, StopReason, Strategy
from supervisor.store import Store
from supervisor.system import Happening, System
from supervisor.transaction import Reading, Transaction
from supervisor.tree import Place, Root, Supervisor

GATEWAYS = "/gateways/fleet/"
ADMIN_TOKEN = "admin.token"  # noqa: S105 - a file's name
# Some more than the children need together: past it, the process ends without them.
SHUTDOWN = 45.0
# Endpoints that change first finish what is under way.
APPLY_TIMEOUT = 20.0


class Switchboard:
    """One appliance: built, then run. Everything that is shared is made here and handed down."""

    def __init__(self, config: Config, reload: Callable[[], Config]) -> None:
        self.current = current = Current(config)
        self.folder = folder = Path(config.state).absolute()
        self.database = Database(
            folder,
            [
                gateway_records.migrations,
                webhook_records.migrations,
                tokens.migrations,
                leases.migrations,
                egress_schema.migrations,
                call_schema.migrations,
            ],
        )
        self.log = EventLog(self.database.epoch, self.database.head, self.database.first)
        self.store = store = Store(self.database, self.log.publish)
        self.registry = Registry(self.database.instance, self.database.boot)
        self.system = System(listener=self._happened)
        self.authenticator = Authenticator()
        self.authenticator.configure(config.auth)
        self.started = time.time()

        self.services = Services(
            store=store,
            registry=self.registry,
            settings=lambda: current.config.gateways,
            folder=folder,
            node=socket.gethostname(),
            starting=trio.CapacityLimiter(config.gateways.starting_at_once),
        )
        self.queue: Ref[QueueMessage] = Ref(Place(lambda: self.supervisor, "egress", "queue"))
        self.egress = EgressServices(
            store=store,
            registry=self.registry,
            settings=lambda: current.config.egress,
            remembered=lambda: current.config.retention.idempotency_hours,
            folder=folder,
            node=self.services.node,
            boot=self.database.boot,
            clock=Clock(),
            tail=Tails(store, folder / "recordings").find,
            queue=self.queue,
            uploads=Poke(),
        )
        self.sweep = Sweeper(store, folder / "egress", self.registry)
        self.calls = CallServices(store, lambda: current.config.calls)
        self.resolver = Resolver(lambda: current.config.runtime)
        self.eraser = Eraser(store, self.log, lambda: current.config.runtime, self.sweep)
        self.live_calls = Supervisor()
        self.call_router: Ref[Any] = Ref(Place(lambda: self.supervisor, "calls", "router"))
        self.workers = Supervisor()
        self.directory = Directory()
        self.members = Supervisor()
        self.webhooks = WebhookServices(store, self.log, lambda: current.config.webhooks)
        self.endpoints = Supervisor()
        self.listeners: Listeners
        self.supervisor = Supervisor(
            [
                ChildSpec("store", store.writer, significant=True, grace=10.0),
                ChildSpec("guardian", self.registry.service, intensity=Intensity(20, 60)),
                ChildSpec("retention", self._keeper),
                ChildSpec("gateways", self._fleet, grace=33.0),
                ChildSpec("egress", self._egress, grace=30.0),
                ChildSpec("calls", self._calls, grace=10.0),
                ChildSpec("webhooks", self._webhooks, grace=10.0),
                ChildSpec("config", lambda: self._reconciler(reload)),
                ChildSpec("api", self._api, significant=True, grace=15.0),
            ],
        )
        self.root = Root(self.supervisor, self.system)
        self.router: Ref[RouterMessage] = Ref(Place(lambda: self.supervisor, "gateways", "router"))
        self.webhook_router: Ref[WebhookMessage] = Ref(
            Place(lambda: self.supervisor, "webhooks", "router")
        )
        self.reconciler: Ref[Reload] = Ref(Place(lambda: self.supervisor, "config"))
        self._build_api()

    def _build_api(self) -> None:
        current = self.current
        appliance = Appliance(
            root=self.root.child,
            store=self.store,
            log=self.log,
            authenticator=self.authenticator,
            reconciler=self.reconciler,
            folder=self.folder,
            started=self.started,
            counts=self._counts,
            document=lambda: self.app.openapi_json,
            concerns=lambda: [*self.egress.board.problems(), *self.webhooks.board.problems()],
        )
        table = Table(
            [
                *GatewayApi(self.router, self.directory).operations(),
                *EgressApi(self.queue, Library(self.store, self.folder)).operations(),
                *RuntimeApi(self.resolver, self.store).operations(),
                *CallsApi(
                    self.call_router,
                    self.calls,
                    self.resolver,
                    lambda: current.config.runtime,
                    lambda: current.config.limits.json_depth,
                ).operations(),
                *SystemApi(appliance).operations(),
                *WebhookApi(self.webhook_router).operations(),
                OPERATION,
            ]
        )
        dispatcher = Dispatcher(
            table,
            self.authenticator,
            Idempotency(self.store),
            lambda: current.config.limits,
            self.database.boot,
        )
        self.streams = Streams(self.log, self.store, dispatcher)
        self.app = App(dispatcher, self.streams)

    # -- the children: a new instance for each incarnation ----------------------

    def _keeper(self) -> Keeper:
        rules: list[Rule] = [
            (gateway_records.forget_old(self.folder / "gateways"), lambda r: r.gateway_days),
            (gateway_records.forget_recordings, lambda r: r.recording_days),
            (egress_records.forget_old, lambda r: r.egress_days),
            (webhook_records.forget_old, lambda r: r.webhook_days),
            (idempotency.forget_old, lambda r: r.idempotency_hours / 24),
            (forget_rejections, lambda r: r.event_days),
            # By the days of each tenant.
            (
                forget_calls(
                    lambda: self.current.config.runtime,
                    lambda: self.current.config.calls,
                    self.eraser.gone,
                ),
                lambda _r: 1.0,
            ),
        ]
        settings = self.current
        sweeps: list[Sweep] = [self.eraser.forget_in_memory, self.sweep]
        return Keeper(self.store, self.log, lambda: settings.config.retention, rules, sweeps)

    def _fleet(self) -> Supervisor:
        return Supervisor(
            [
                ChildSpec("fleet", self._new_members, grace=30.0),
                ChildSpec("router", self._router, grace=2.0),
            ],
            Strategy.REST_FOR_ONE,
        )

    def _new_members(self) -> Supervisor:
        self.members = Supervisor()
        return self.members

    def _router(self) -> RouterActor:
        return RouterActor(self.services, self.members, self.directory)

    def _egress(self) -> Supervisor:
        return Supervisor(
            [
                ChildSpec("workers", self._new_workers, grace=27.0),
                ChildSpec("queue", lambda: QueueActor(self.egress, self.workers), grace=2.0),
                ChildSpec("uploads", self._uploader, grace=2.0),
            ],
            Strategy.REST_FOR_ONE,
        )

    def _uploader(self) -> Uploader:
        services = self.egress
        return Uploader(
            self.store,
            lambda: self.current.config.egress.upload,
            self.folder,
            services.clock,
            services.uploads,
            services.board.gave_up,
        )

    def _new_workers(self) -> Supervisor:
        self.workers = Supervisor()
        return self.workers

    def _calls(self) -> Supervisor:
        return Supervisor(
            [
                ChildSpec("live", self._new_live_calls, grace=6.0),
                ChildSpec(
                    "router",
                    lambda: CallRouter(self.calls, self.live_calls, self.eraser),
                    grace=2.0,
                ),
                ChildSpec("summaries", lambda: Summaries(self.calls), grace=2.0),
            ],
            Strategy.REST_FOR_ONE,
        )

    def _new_live_calls(self) -> Supervisor:
        self.live_calls = Supervisor()
        return self.live_calls

    def _webhooks(self) -> Supervisor:
        return Supervisor(
            [
                ChildSpec("endpoints", self._new_endpoints, grace=8.0),
                ChildSpec("router", self._webhook_router, grace=2.0),
            ],
            Strategy.REST_FOR_ONE,
        )

    def _new_endpoints(self) -> Supervisor:
        self.endpoints = Supervisor()
        return self.endpoints

    def _webhook_router(self) -> WebhookRouter:
        return WebhookRouter(self.webhooks, self.endpoints)

    def _api(self) -> Listeners:
        current = self.current
        self.listeners = Listeners(
            self.app, lambda: current.config.server, lambda: current.config.limits
        )
        return self.listeners

    def _reconciler(self, reload: Callable[[], Config]) -> Reconciler:
        return Reconciler(
            self.current,
            reload,
            self.store,
            [
                self._apply_listeners,
                self._apply_rest,
                self._apply_profiles,
                self._apply_webhooks,
            ],
        )

    # -- a reload -------------------------------------------------------------

    async def _apply_listeners(self, old: Config, new: Config) -> None:
        if old.server != new.server or old.limits != new.limits:
            await self.listeners.apply()

    async def _apply_rest(self, old: Config, new: Config) -> None:
        if old.auth != new.auth:
            self.authenticator.configure(new.auth)
        if old.log != new.log:
            logs.configure(new.log.level)
        self.services.starting.total_tokens = new.gateways.starting_at_once

    async def _apply_profiles(self, old: Config, new: Config) -> None:
        for name in changed_profiles(old, new):
            for gw_id in await self.store.read(gateway_records.live_of, name):
                ref = self.directory.find(gw_id)
                if ref is not None:
                    with suppress(ActorDown, MailboxFull):
                        ref.tell(ProfileChanged())

    async def _apply_webhooks(self, old: Config, new: Config) -> None:
        if old.webhooks != new.webhooks:
            # A router that is down just now starts with what is in force.
            with suppress(ActorDown, MailboxFull):
                await self.webhook_router.ask(Apply(), APPLY_TIMEOUT)

    # -- what happens in the tree ----------------------------------------------

    def _happened(self, happening: Happening) -> None:
        self.store.submit(
            _tell_happening,
            happening.kind,
            happening.path,
            str(happening.reason),
            happening.restarts,
        )

    def _counts(self) -> dict[str, int]:
        return {
            "connections": self.listeners.connections,
            "subscribers": self.streams.subscribers,
            "requests": self.app.dispatcher.requests,
            "commits": self.store.commits,
            "commands": self.store.commands,
            "writes_waiting": self.store.waiting,
            "gateways_live": len(self.directory.refs),
            "calls_live": len(self.calls.live),
            "processes": len(self.registry.groups),
        }

    # -- life -----------------------------------------------------------------

    async def prepare(self) -> str | None:
        """Before the tree starts: end what is left from before, and see that there is a token.

        Returns the admin token if it was made now. What it found and did is the first write.
        """
        database = self.database
        with database.reader() as connection:
            reading = Reading(connection)
            known = orphans.noted(reading)
            identities = tokens.identities(reading)
            met_before = tokens.had_admin(reading)
        ended = await trio.to_thread.run_sync(
            orphans.sweep, database.instance, database.boot, known
        )
        for pid, owner in ended:
            logger.warning("orphan_ended", pid=pid, owner=owner)
        # Once in the life of a database: a revoked admin does not come back by a restart.
        made = None if identities or met_before else tokens.fresh()
        if made is not None:
            identities[digest(made)] = Identity("admin", frozenset({"*"}))
        self.authenticator.store_holds(identities)

        def first(tx: Transaction) -> None:
            webhook_records.note_epoch(tx, database.epoch, database.head)
            orphans.forget_all(tx, ended)
            if made is not None:
                tokens.add_admin(tx, made)
            tx.emit("system.started", "system/appliance", {"boot": database.boot})

        self.store.submit(first)
        return made

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until stopped. Raises StartFailed when a significant part cannot be kept running."""

        async def when_ready() -> None:
            await self.root.child.settled()
            if self.root.child.state is State.RUNNING:
                on_ready()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(when_ready)
            await self.root.run()
            nursery.cancel_scope.cancel()

    def stop(self, why: str) -> None:
        """Begin the ordered stop."""
        self.streams.stopping.set()
        self.store.submit(_tell_stopping, why)
        self.root.stop(StopReason(Cause.SHUTDOWN, why))

    async def reload(self) -> None:
        """As SIGHUP does: what is wrong is in the log and in an event."""
        try:
            await self.reconciler.ask(Reload(), 30.0)
        except (Rejected, ActorDown, MailboxFull, AskExpired) as error:
            logger.error("reload_failed", error=str(error))

    def close(self) -> None:
        """Give the state folder free."""
        self.database.close()


def _tell_happening(tx: Transaction, kind: str, path: str, reason: str, restarts: int) -> None:
    tx.emit(f"actor.{kind}", f"actor{path}", {"reason": reason, "restarts": restarts})
    if kind == "quarantined" and path.startswith(GATEWAYS):
        # Its process ended with it, and nobody is left to tell of its calls until it is revived.
        call_records.close_all(tx, path.removeprefix(GATEWAYS), "its actor is in quarantine")


def _tell_stopping(tx: Transaction, why: str) -> None:
    tx.emit("system.stopping", "system/appliance", {"reason": why})


# -- the process ----------------------------------------------------------------


async def _signals(board: Switchboard, give_up: trio.CancelScope, reloads: trio.Nursery) -> None:
    """TERM and INT stop in order, a second one at once; HUP reloads."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        stopping = False
        async for number in received:
            if number == signal.SIGHUP:
                logger.info("signal", name="SIGHUP")
                reloads.start_soon(board.reload)
            elif stopping:
                logger.warning("stop_cut_short")
                give_up.cancel()
            else:
                stopping = True
                give_up.deadline = trio.current_time() + SHUTDOWN
                systemd.notify("STOPPING=1")
                board.stop(signal.Signals(number).name)


async def _serve(config: Config, reload: Callable[[], Config]) -> None:
    board = Switchboard(config, reload)
    try:
        await server.check(config.server)
        made = await board.prepare()
        if made is not None:
            write_token(board.folder / ADMIN_TOKEN, made)

        def on_ready() -> None:
            systemd.notify("READY=1")
            logger.info("ready", seconds=round(time.time() - board.started, 3))
            if sys.stderr.isatty():
                addresses = " ".join(board.listeners.addresses)
                sys.stderr.write(f"Switchboard is ready: {addresses} (documentation: /docs)\n")

        with trio.CancelScope() as give_up:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_signals, board, give_up, nursery)
                nursery.start_soon(systemd.keep_alive)
                await board.run(on_ready)
                nursery.cancel_scope.cancel()
    finally:
        board.close()


def write_token(path: Path, token: str) -> None:
    """The first token, readable by the owner alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")


def serve(config: Path | None) -> None:
    """Run the appliance in the foreground: `switchboard serve`."""
    settings = load_or_exit(find(config))
    logs.configure(settings.log.level)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # What is kept holds secrets and people's voices.
    os.umask(0o077)
    try:
        # Looked for at each reload: a file may be made after the start.
        trio.run(_serve, settings, lambda: load(find(config)))
    except BaseExceptionGroup as group:
        _explain(group)
    except (Fatal, StartFailed, OSError) as error:
        _explain(BaseExceptionGroup("", [error]))


def _explain(group: BaseExceptionGroup[BaseException]) -> None:
    """End the process with what is wrong, in words; a bug keeps its traceback."""
    fatal, _ = group.split(Fatal)
    if fatal is not None:
        fail(str(_leaf(fatal)), 3)
    known, bugs = group.split((StartFailed, OSError))
    if bugs is not None or known is None:
        raise group
    fail(str(_leaf(known)), 1)


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
