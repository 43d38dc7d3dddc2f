"""A reference to an actor: what others hold, and all they can do with it."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from supervisor.errors import ActorDown, MailboxFull
from supervisor.mailbox import Ask, Mailbox, Message
from supervisor.reply import Reply

M = TypeVar("M", bound=Message, contravariant=True)
R = TypeVar("R")

ASK_TIMEOUT = 5.0


class Cell(Protocol):
    """Where the current incarnation's mailbox is found."""

    @property
    def path(self) -> str:
        """Where in the tree."""

    @property
    def mailbox(self) -> Mailbox | None:
        """None while there is no incarnation."""

    @property
    def down_reason(self) -> str:
        """Why there is no mailbox now."""


class Ref(Generic[M]):
    """Stays good across restarts: it names the place, not the incarnation."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def path(self) -> str:
        """Where in the tree, `/gateways/fleet/gw01`."""
        return self._cell.path

    @property
    def waiting(self) -> int:
        """How many messages wait there now."""
        mailbox = self._cell.mailbox
        return 0 if mailbox is None else mailbox.depth

    def _mailbox(self) -> Mailbox:
        mailbox = self._cell.mailbox
        if mailbox is None:
            raise ActorDown(self._cell.path, self._cell.down_reason)
        return mailbox

    def tell(self, message: M) -> None:
        """Send and go on; never waits. Raises MailboxFull or ActorDown."""
        self._mailbox().put(message)

    async def ask(self, message: Ask[R], timeout: float = ASK_TIMEOUT) -> R:
        """Send and wait for the answer, at most `timeout` seconds.

        Raises MailboxFull, ActorDown, AskExpired, or the Rejected that the actor answers.
        """
        mailbox = self._cell.mailbox
        if mailbox is None:
            raise ActorDown(self._cell.path, self._cell.down_reason)
        reply: Reply[R] = Reply(timeout, message)
        mailbox.put_ask(reply)
        return await reply.wait()

    def forward(self, message: Ask[R], reply: Reply[R]) -> None:
        """Hand on an ask: the other actor answers the one who asked first.

        When the other cannot take it, the asker is told; nothing is raised here.
        """
        mailbox = self._cell.mailbox
        if mailbox is None:
            reply.fail(ActorDown(self._cell.path, self._cell.down_reason))
            return
        try:
            reply.message = message
            mailbox.put_ask(reply)
        except (MailboxFull, ActorDown) as error:
            reply.fail(error)

    def __repr__(self) -> str:
        return f"<Ref {self._cell.path}>"


AnyRef = Ref[Any]
