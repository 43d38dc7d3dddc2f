"""One endpoint: reads the log into its outbox, and sends what is in it, in order.

Beside the receive loop one task reads the log, one waits for what is due, and each try is one.
They report by message, so that the outbox has one owner.
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
from collections.abc import Sequence
from typing import Any, assert_never

import msgspec
import trio

from actors.webhook import delivery_records, records
from actors.webhook.delivery_records import Letter
from actors.webhook.machine import WELL, Receiver, Rule, State, observe, step
from actors.webhook.messages import (
    Counted,
    Due,
    Enable,
    Enabled,
    EndpointMessage,
    Opened,
    Ping,
    Pinged,
    Queued,
    Redrive,
    Redriven,
    Settled,
)
from actors.webhook.outbox import Item, Outbox
from actors.webhook.patience import Patient
from actors.webhook.reading import LogReading
from actors.webhook.sender import Sender
from actors.webhook.services import Services, Standing
from config.model import Webhook
from supervisor.actor import LATER, Actor
from supervisor.errors import Rejected, StoreUnavailable
from supervisor.event import timestamp
from supervisor.log import logger
from supervisor.reply import Reply
from supervisor.spec import StopReason

# Deliveries that wait; while there are as many the log is not read, and keeps the rest.
MAX_PENDING = 1000
# What is under way when it is to stop gets so long: cut off, it would be sent once more.
DRAIN = 5.0
# Retention deletes dead letters without a word: they are counted again while there are any.
COUNT_EVERY = 60.0


class EndpointActor(Actor[Any]):
    """Of the endpoint `name`, as `section` has it; with another section it is another actor."""

    mailbox_size = 256

    def __init__(self, services: Services, name: str, section: Webhook) -> None:
        self._services = services
        self._name = name
        self._section = section
        self._patient = Patient(services.store, name)
        self._rule = Rule(section.attempts, section.backoff_first, section.backoff_cap)
        self._rng = random.Random()  # noqa: S311 - jitter
        self._standing = services.board.standings[name] = Standing(section)
        self._outbox = Outbox()
        self._receiver: Receiver = WELL
        self._opened = False
        self._tries = 0
        self._all_back = trio.Event()
        self._alarm, self._alarm_set = math.inf, trio.Event()
        self._counting = False
        self._pinging = trio.Lock()
        self._reading: LogReading | None = None
        self._sender: Sender

    # -- life -----------------------------------------------------------------

    async def on_start(self) -> None:
        """See Actor.on_start. What needs the disk comes after: it may refuse for a long time."""
        self._sender = Sender(self._section, self._services.tls)
        self.spawn(self._keep_client)
        self.spawn(self._open)

    async def on_stop(self, reason: StopReason) -> None:
        """Wait for what is under way, and keep how far the log was read."""
        del reason
        with trio.move_on_after(DRAIN):
            while self._tries:
                self._all_back = trio.Event()
                await self._all_back.wait()
            if self._reading is not None:
                try:
                    await self._reading.keep_place()
                except StoreUnavailable as error:
                    logger.warning("cursor_not_kept", actor=self.context.path, error=str(error))

    async def _keep_client(self) -> None:
        """Its connections end with the actor, however that ends."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(1) as scope:
                scope.shield = True
                await self._sender.close()

    async def _open(self) -> None:
        services, name = self._services, self._name
        settings = hashlib.sha256(msgspec.json.encode(self._section, order="sorted")).hexdigest()
        row = await self._patient.write(records.open_endpoint, name, settings, services.log.epoch)
        waiting = await self._patient.read(delivery_records.pending, name)
        pending = [
            (Item(seq, subject, attempts), delivery_records.seconds_until(due, self._rule.cap))
            for seq, subject, attempts, due in waiting
        ]
        await self.post(Opened(row.disabled, row.since, row.seq, row.dead, pending))

    # -- messages -------------------------------------------------------------

    async def handle(self, message: EndpointMessage) -> object:
        """See Actor.handle."""
        match message:
            case Redrive() | Enable() if not self._opened:
                raise Rejected("busy", f"the webhook {self._name!r} is just starting")
            case Redrive(_, ids):
                return await self._redrive(ids)
            case Enable(_, caller):
                return await self._enable(caller)
            case Ping():
                self.spawn(self._ping, self.defer())
                return LATER
            case Opened():
                self._take_up(message)
            case Queued(items):
                for item in items:
                    self._outbox.add(item)
            case Settled():
                self._settle(message)
            case Counted(dead):
                self._standing.dead = dead
            case Due():
                pass
            case _:
                assert_never(message)
        self._pump()
        return None

    def _take_up(self, message: Opened) -> None:
        now = trio.current_time()
        for item, wait in message.pending:
            item.due = now + wait
            self._outbox.add(item)
        it = self._standing
        it.disabled, it.since = message.disabled, message.since
        self._note_dead(message.dead)
        self._opened = True
        self._reading = LogReading(
            self._services, self._name, self._section, message.cursor, self._room
        )
        self.spawn(self._reading.run, self._report)
        self.spawn(self._watch_clock)

    async def _report(self, items: Sequence[Item]) -> None:
        await self.post(Queued(items))

    async def _redrive(self, ids: tuple[str, ...] | None) -> Redriven:
        room = max(MAX_PENDING - len(self._outbox), 0)
        if not room:
            raise Rejected("busy", f"{MAX_PENDING} deliveries of {self._name!r} wait already")
        found, left = await self._services.store.write(
            delivery_records.redrive, self._name, ids, room
        )
        for seq, subject in found:
            self._outbox.add(Item(seq, subject))
        self._note_dead(left)
        self._pump()
        return Redriven(len(found), left)

    async def _enable(self, caller: str) -> Enabled:
        changed = await self._services.store.write(records.enable, self._name, caller)
        self._standing.disabled = self._standing.since = ""
        self._receiver = WELL
        self._pump()
        return Enabled(self._name, changed)

    # -- sending --------------------------------------------------------------

    @property
    def _active(self) -> bool:
        return self._opened and self._section.enabled and not self._standing.disabled

    def _room(self) -> int:
        """How many more may be queued; none while nothing is sent."""
        return max(MAX_PENDING - len(self._outbox), 0) if self._active else 0

    def _pump(self) -> None:
        """Send whatever may go now, and see to it that the rest is not forgotten."""
        outbox, now = self._outbox, trio.current_time()
        if self._reading is not None and self._room():
            self._reading.may_go_on()
        self._standing.away = self._receiver.away
        if not self._active:
            return
        while outbox.flying < self._section.concurrency:
            item = outbox.take(now, fresh=self._fresh_may_go(now))
            if item is None:
                break
            self._tries += 1
            self.spawn(self._try, item)
        due = outbox.next_due()
        if self._receiver.away and outbox.has_fresh and self._receiver.held_until > now:
            due = min(due, self._receiver.held_until)
        # One that is due, and for which there was no place, goes when another is back.
        self._alarm = due if due > now else math.inf
        self._alarm_set.set()

    def _fresh_may_go(self, now: float) -> bool:
        if not self._receiver.away:
            return True
        return now >= self._receiver.held_until and not self._outbox.first_tries

    async def _watch_clock(self) -> None:
        while True:
            self._alarm_set = trio.Event()
            with trio.move_on_at(self._alarm):
                await self._alarm_set.wait()
                continue
            self._alarm = math.inf
            await self.post(Due())

    async def _try(self, item: Item) -> None:
        """One try, and its row: only then may the next of its subject go."""
        try:
            letter = await self._patient.read(delivery_records.letter, self._name, item.seq)
            if letter is None:
                settled = Settled(item, None, None)
            else:
                settled = await self._send(item, letter)
        finally:
            self._tries -= 1
            self._all_back.set()
        await self.post(settled)

    async def _send(self, item: Item, letter: Letter) -> Settled:
        outcome = await self._sender.post(letter.id, self._sender.body(letter))
        after = step(item.attempts, outcome, self._rule, self._rng)
        # What the receiver took must not be sent again for as long as this process lives, whatever
        # the disk does.
        disabled = await self._patient.write(
            delivery_records.settle, self._name, item.seq, outcome, after
        )
        return Settled(item, outcome, after, disabled)

    def _settle(self, message: Settled) -> None:
        item, outcome, after = message.item, message.outcome, message.after
        if outcome is None or after is None:
            self._outbox.settled(item)
            return
        now = trio.current_time()
        self._receiver = observe(self._receiver, item.subject, outcome, self._rule, now, self._rng)
        item.attempts = after.attempts
        if after.state is State.PENDING:
            self._outbox.again(item, now + after.wait)
        else:
            self._outbox.settled(item)
        if after.state is State.DEAD:
            self._note_dead(self._standing.dead + 1)
        if not outcome.accepted:
            logger.warning(
                "webhook_failed",
                webhook=self._name,
                seq=item.seq,
                attempts=after.attempts,
                state=after.state.value,
                reason=outcome.reason,
            )
        if message.disabled and not self._standing.disabled:
            self._standing.disabled, self._standing.since = message.disabled, timestamp()

    async def _ping(self, reply: Reply[Pinged]) -> None:
        """Out of turn, and whether it is enabled or not: it is to see what comes back."""
        it = Letter(
            f"msg_test_{secrets.token_hex(8)}",
            0,
            self._services.log.epoch,
            timestamp(),
            "webhook.test",
            f"webhook/{self._name}",
            msgspec.json.encode({"webhook": self._name, "test": True}).decode(),
        )
        # One at a time: what is to be delivered must not wait for a connection.
        async with self._pinging:
            outcome = await self._sender.post(it.id, self._sender.body(it))
        reply.set(
            Pinged(
                outcome.accepted, outcome.status, outcome.reason, outcome.answer, outcome.seconds
            )
        )

    # -- dead letters ---------------------------------------------------------

    def _note_dead(self, dead: int) -> None:
        self._standing.dead = dead
        if dead and not self._counting:
            self._counting = True
            self.spawn(self._recount)

    async def _recount(self) -> None:
        while self._standing.dead:
            await trio.sleep(COUNT_EVERY)
            await self.post(Counted(await self._patient.read(records.count_dead, self._name)))
            await trio.lowlevel.checkpoint()
        self._counting = False
