"""Every error that this package raises on purpose.

SwitchboardError
 ├── Rejected              an answer that is an error; the actor that gave it lives on
 │    └── StoreUnavailable the disk refuses writes (full, read-only, failing): HTTP 507
 ├── ActorDown             the actor asked has ended; the request may be repeated
 ├── MailboxFull           the actor has more waiting than it takes: HTTP 503
 ├── AskExpired            the deadline passed before the answer came: HTTP 504
 ├── StartFailed           a child did not become ready in time
 └── Fatal                 restarting cannot mend it; the appliance must not run
      ├── StoreCorrupt     the database cannot be read as one
      ├── StoreMissing     the state folder was in use, and its database is gone
      └── StateLocked      another appliance runs on this state folder

A Rejected is part of a protocol: whoever asked gets it. Any other exception out of
an actor is a bug, ends the actor, and is the supervisor's business.
"""

from __future__ import annotations

from collections.abc import Mapping


class SwitchboardError(Exception):
    """Root of all errors raised on purpose."""


class Rejected(SwitchboardError):
    """An answer that is an error.

    `code` is a stable word for programs (`not_found`), `message` a sentence for
    people, `details` JSON-ready facts that help to act on it.
    """

    def __init__(
        self, code: str, message: str, details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = dict(details or {})

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.message, self.details)


class StoreUnavailable(Rejected):
    """The disk refuses writes; nothing of the command was kept."""

    def __init__(self, message: str) -> None:
        super().__init__("insufficient_storage", message)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message,)


class ActorDown(SwitchboardError):
    """The actor ended, or is between two lives, before it answered."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is down: {reason}")
        self.path = path
        self.reason = reason


class MailboxFull(SwitchboardError):
    """The mailbox took no more, and the message's class says to refuse."""

    def __init__(self, path: str, size: int) -> None:
        super().__init__(f"mailbox of {path} is full ({size} messages)")
        self.path = path


class AskExpired(SwitchboardError):
    """No answer within the deadline. The request may still have been carried out."""

    def __init__(self, timeout: float) -> None:
        super().__init__(f"no answer within {timeout:g} s")
        self.timeout = timeout


class StartFailed(SwitchboardError):
    """A child was not ready within its `ready_timeout`."""


class Fatal(SwitchboardError):
    """Restarting cannot mend this; the whole appliance must refuse to run."""


class StoreCorrupt(Fatal):
    """The database is damaged, or was written by a newer version."""


class StoreMissing(Fatal):
    """The state folder has been in use, and its database is not there."""


class StateLocked(Fatal):
    """Another appliance holds the lock of this state folder."""
