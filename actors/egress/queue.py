"""The queue: takes tasks, claims what fits, and looks after those who work.

The rows are the truth; what is open is also here in memory, because it is asked for all the time.
The queue never waits for a worker: it is told, or it looks.
"""

from __future__ import annotations

import functools
import math
import secrets
import shutil
from collections.abc import Callable
from typing import Any, assert_never

import trio

from actors import lease as leases
from actors.egress import records
from actors.egress.admission import Amount
from actors.egress.answers import Answers, tell, unknown
from actors.egress.claims import Claims, Open
from actors.egress.job import allowed, new_task
from actors.egress.machine import State
from actors.egress.measure import Meter
from actors.egress.messages import (
    DeleteTask,
    EndRecording,
    GetCapacity,
    GetTask,
    ListTasks,
    Look,
    Measured,
    QueueMessage,
    SetSpotlight,
    StopTaken,
    StopTask,
    Submit,
    Submitted,
    UploadAgain,
    WorkerEnded,
)
from actors.egress.records import Task
from actors.egress.request import understand
from actors.egress.services import Services
from actors.egress.sources import fields
from actors.egress.worker import TaskWorker
from actors.lease import Lease
from supervisor.actor import LATER, Actor
from supervisor.errors import Rejected, StartFailed
from supervisor.log import logger
from supervisor.reply import Reply
from supervisor.service import Service
from supervisor.spec import Cause, ChildSpec, Restart, StopReason
from supervisor.tree import Supervisor

# What a worker gets to end its recording in order, in seconds.
GRACE = 25.0
MEASURE_EVERY = 5.0

NewWorker = Callable[[Task, Lease, Services], Service]


class QueueActor(Actor[QueueMessage]):
    """One for the appliance; `members` is the supervisor of the workers."""

    mailbox_size = 2048

    def __init__(
        self, services: Services, members: Supervisor, new_worker: NewWorker = TaskWorker
    ) -> None:
        self._services = services
        self._members = members
        self._new_worker = new_worker
        self._open: dict[str, Open] = {}
        self._claims = Claims(services.settings, self._open, members)
        self._ledger = self._claims.ledger
        self._answers = Answers(services, self._open)
        self._stir = trio.Event()
        self._disk_free = math.inf
        self._stopped_claims = ""
        self._submitting = 0
        self._quiet_until = 0.0
        self._looked = math.inf

    # -- start --------------------------------------------------------------------

    async def on_start(self) -> None:
        """Take back what this node's earlier boots held, and what an earlier queue here left."""
        services = self._services
        limit = services.settings().retries
        await services.store.write(
            records.take_back, services.node, services.boot, limit, services.clock.now()
        )
        for task in await services.store.read(records.still_open):
            found = Open(task, trio.current_time())
            child = self._members.child(task.task_id)
            if child is not None and not child.ended:
                found.child = child
                self._claims.reserve(task)
            self._open[task.task_id] = found
        self._look_at_disk(await trio.to_thread.run_sync(self._free))
        self.spawn(self._claiming)
        self.spawn(self._ticking)
        self.spawn(self._measuring)

    async def handle(self, message: QueueMessage) -> object:
        """See Actor.handle."""
        match message:
            case Submit():
                return self._submit(message)
            case StopTask():
                self.spawn(self._answering, self._stop_task, message, self.defer())
                return LATER
            case GetTask():
                self.spawn(self._answering, self._answers.get, message, self.defer())
                return LATER
            case ListTasks():
                self.spawn(self._answering, self._answers.page, message, self.defer())
                return LATER
            case SetSpotlight():
                self.spawn(self._answering, self._answers.show, message, self.defer())
                return LATER
            case DeleteTask():
                self.spawn(self._answering, self._answers.delete, message, self.defer())
                return LATER
            case UploadAgain():
                self.spawn(self._answering, self._answers.upload_again, message, self.defer())
                return LATER
            case GetCapacity():
                return self._claims.view(self._disk_free, self._stopped_claims)
            case Look():
                await self._look()
            case Measured(amounts, disk_free):
                self._take_measure(amounts, disk_free)
            case WorkerEnded(task_id, fence, state):
                self._worker_ended(task_id, fence, state)
            case _:
                assert_never(message)
        return None

    async def _answering(
        self, do: Callable[[Any], Any], message: QueueMessage, reply: Reply[Any]
    ) -> None:
        """Work for one reply: what fails there fails that reply, and nobody else's."""
        try:
            reply.set(await do(message))
        except Rejected as error:
            reply.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the asker gets an answer
            logger.error("answer_failed", actor=self.context.path, exc_info=error)
            reply.fail(Rejected("busy", "it cannot be done just now"))

    # -- a start --------------------------------------------------------------------

    def _submit(self, message: Submit) -> object:
        kind, wanted = understand(message.cmd, message.payload)
        task_id = secrets.token_hex(8)
        filled = fields(message.app_id, task_id, wanted, message.payload)
        task = new_task(message, task_id, kind, wanted, self._services.clock.now())
        waiting = sum(1 for o in self._open.values() if o.task.state is State.ENQUEUED)
        try:
            allowed(kind, wanted, filled, self._services.settings())
            if waiting + self._submitting >= self._services.settings().limits.waiting:
                raise Rejected("too_many", f"{waiting} tasks are waiting already")
        except Rejected as error:
            # Not a repeat of what was taken before: that is told its task whatever is the case now.
            answer = functools.partial(self._answers.taken_before, task, error)
            self.spawn(self._answering, answer, message, self.defer())
            return LATER
        self._submitting += 1
        self.spawn(self._keep, task, self.defer())
        return LATER

    async def _keep(self, task: Task, reply: Reply[Submitted]) -> None:
        """Written beside other starts: many at once share a commit."""
        since = self._answers.remembered_since()
        try:
            kept, new = await self._services.store.write(records.submit, task, since)
        except Rejected as error:
            reply.fail(error)
            return
        finally:
            self._submitting -= 1
        if new:
            self._open[kept.task_id] = Open(kept, trio.current_time())
            self._stir.set()
        reply.set(Submitted(kept.task_id, kept.state.value))

    def stir(self) -> None:
        """Look whether something can be claimed: settings have changed."""
        self._stir.set()

    # -- claims -------------------------------------------------------------------

    async def _claiming(self) -> None:
        """Claim whatever fits, each time something has changed."""
        while True:
            self._stir = trio.Event()
            chosen = self._claims.chosen(self._stopped_claims)
            if chosen:
                await self._claim(chosen)
            await self._stir.wait()

    async def _claim(self, chosen: list[str]) -> None:
        services = self._services
        now, seconds = services.clock.now(), services.settings().lease
        try:
            claimed = await services.store.write(
                records.claim, chosen, services.node, services.boot, now, seconds
            )
        except Rejected as error:
            logger.warning("claim_put_off", actor=self.context.path, error=str(error))
            for task_id in chosen:
                self._ledger.remove(task_id)
            return
        done = set()
        for task, lease in claimed:
            done.add(task.task_id)
            self._start_worker(task, lease)
        for task_id in set(chosen) - done:
            # Stopped meanwhile, or held by somebody else.
            self._ledger.remove(task_id)

    def _start_worker(self, task: Task, lease: Lease) -> None:
        entry = self._open.get(task.task_id)
        if entry is None:
            entry = self._open[task.task_id] = Open(task, trio.current_time())
        # A stop that was kept between the claim and now.
        stopping = entry.task.state is State.STOPPING
        entry.task, entry.lease, entry.waiting_for = task, lease, ""
        services, new = self._services, self._new_worker
        spec = ChildSpec(
            id=task.task_id,
            start=lambda: new(task, lease, services),
            restart=Restart.TEMPORARY,
            grace=GRACE,
        )
        try:
            entry.child = self._members.start_child(spec)
            if stopping:
                tell(entry.child.ref, EndRecording())
        except (ValueError, StartFailed) as error:
            # The one before is just ending: the next look finds this one without a worker.
            logger.warning("worker_not_started", task_id=task.task_id, error=str(error))

    # -- ends ---------------------------------------------------------------------

    def _worker_ended(self, task_id: str, fence: int, state: str) -> None:
        entry = self._open.get(task_id)
        if entry is None or entry.lease is None or entry.lease.fence != fence:
            return
        if State(state).terminal:
            self._close(task_id)

    def _close(self, task_id: str) -> None:
        self._open.pop(task_id, None)
        self._ledger.remove(task_id)
        self._stir.set()

    async def _stop_task(self, message: StopTask) -> StopTaken:
        await self._answers.of_app(message.app_id, message.task_id)
        found = await self._services.store.write(records.ask_to_stop, message.task_id)
        if found is None:
            raise unknown(message.task_id)
        task, over = found
        entry = self._open.get(message.task_id)
        if entry is not None:
            entry.task = task
            if task.state.terminal:
                self._close(task.task_id)
            elif entry.child is not None:
                tell(entry.child.ref, EndRecording())
            else:
                self._stir.set()  # it was put back: somebody only has to finish it
        return StopTaken(task.task_id, over, task.state.value)

    # -- looking after --------------------------------------------------------------

    async def _ticking(self) -> None:
        while True:
            await trio.sleep(self._services.settings().look_every)
            await self.post(Look())

    async def _look(self) -> None:
        """Workers that are gone, leases that ran out, tasks that nobody claimed."""
        settings, store = self._services.settings(), self._services.store
        now = self._services.clock.now()
        stood_still = now - self._looked > 3 * settings.look_every
        self._looked = now
        if stood_still:
            # All of it stood still (a machine that slept): who works could not renew either.
            self._quiet_until = now + 2 * settings.renew
        if store.failing:
            # Nobody can renew; when the disk takes writes again, they get the time to.
            self._quiet_until = now + 2 * settings.renew
            return
        quiet = now < self._quiet_until
        try:
            over = set() if quiet else set(await store.read(leases.run_out, records.KIND, now))
            for task_id, entry in list(self._open.items()):
                child = entry.child
                if task_id in over and child is not None and not child.ended:
                    # It still works, and must not: what it writes is refused from now on.
                    reason = StopReason(Cause.REMOVED, "its lease ran out")
                    self.spawn(self._members.stop_child, task_id, reason)
                if task_id in over or (child is not None and child.ended):
                    await self._lost(task_id, entry, task_id in over)
            await self._age(settings.claim_timeout)
        except Rejected as error:
            logger.warning("look_put_off", actor=self.context.path, error=str(error))
        self._stir.set()

    async def _lost(self, task_id: str, entry: Open, late: bool) -> None:
        settings, services = self._services.settings(), self._services
        why = "its lease ran out" if late else "its worker ended"
        task = await services.store.read(records.load, task_id)
        if task is not None and not task.state.terminal:
            task = await services.store.write(
                records.lost, task_id, settings.retries, why, services.clock.now()
            )
        self._ledger.remove(task_id)
        if task is None or task.state.terminal:
            self._close(task_id)
            return
        logger.warning("worker_lost", task_id=task_id, why=why, retries=task.retry_count)
        entry.task, entry.lease, entry.child = task, None, None
        entry.since = trio.current_time()

    async def _age(self, timeout: float) -> None:
        """What was never claimed goes by age; what was begun waits until it can go on."""
        now = trio.current_time()
        old = [
            task_id
            for task_id, entry in self._open.items()
            if entry.task.state is State.ENQUEUED
            and entry.task.claims == 0
            and entry.child is None
            and now - entry.since > timeout
        ]
        for task in await self._services.store.write(records.time_out, old, timeout) if old else ():
            self._close(task.task_id)

    # -- what there is, and what is taken ------------------------------------------------

    def _free(self) -> float:
        """MiB of the disk that the recordings are on: it may be one of their own."""
        own = self._services.folder / "egress"
        return shutil.disk_usage(own if own.exists() else own.parent).free / 2**20

    async def _measuring(self) -> None:
        meter = Meter()
        while True:
            await trio.sleep(MEASURE_EVERY)
            working = {
                task_id: entry.child.service
                for task_id, entry in self._open.items()
                if entry.child is not None and isinstance(entry.child.service, TaskWorker)
            }
            groups = {task_id: worker.groups for task_id, worker in working.items()}
            written = {task_id: worker.written for task_id, worker in working.items()}
            now = trio.current_time()
            amounts = await trio.to_thread.run_sync(meter.measure, groups, written, now)
            free = await trio.to_thread.run_sync(self._free)
            await self.post(Measured(amounts, free))

    def _take_measure(self, amounts: dict[str, Amount], free: float) -> None:
        for task_id, amount in amounts.items():
            reserve = self._ledger.reserves.get(task_id)
            if reserve is not None:
                reserve.correct(amount)
        self._look_at_disk(free)
        self._stir.set()

    def _look_at_disk(self, free: float) -> None:
        least = self._services.settings().disk_free_mb
        self._disk_free = free
        why = f"less than {least:g} MiB of the disk are free" if free < least else ""
        if why == self._stopped_claims:
            return
        self._stopped_claims = self._services.board.claims_stopped = why
        kind = "egress.claims_stopped" if why else "egress.claims_resumed"
        logger.warning(kind, free_mb=round(free))
        data = {"reason": why, "disk_free_mb": round(free, 1)}
        self._services.store.submit(_announce, kind, data)


def _announce(tx: Any, kind: str, data: dict[str, Any]) -> None:
    tx.emit(kind, "egress/queue", data)
