"""The event: one envelope everywhere, and the topics that select among events."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import msgspec

_encode = msgspec.json.Encoder().encode


class Event(msgspec.Struct, frozen=True, gc=False):
    """What happened, as it stands in the log.

    `seq` rises strictly and has no holes; `ts` is RFC 3339 in UTC with microseconds; `type` is
    `<kind>.<what>`; `subject` is `<kind>/<id>`; `data` is a JSON object, kept as it was encoded.
    """

    seq: int
    ts: str
    type: str
    subject: str
    data: msgspec.Raw


def encode(event: Event) -> bytes:
    """The envelope as JSON: `{"seq":…,"ts":…,"type":…,"subject":…,"data":{…}}`."""
    return _encode(event)


def timestamp(now: datetime.datetime | None = None) -> str:
    """RFC 3339, microseconds, UTC (`2026-01-31T23:59:59.000001Z`)."""
    moment = now or datetime.datetime.now(datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Topics:
    """Which events a reader wants.

    Each topic is a subject (`gateway/gw01`, it has a slash), all subjects of a kind
    (`gateway/*`), an event type (`gateway.started`), or all types of a kind (`gateway.*`,
    or just `gateway`). None, or `*`, is everything.
    """

    __slots__ = ("all", "kinds", "names", "subjects", "types")

    def __init__(self, topics: Iterable[str] = ()) -> None:
        self.names = tuple(sorted({t.strip() for t in topics if t.strip()}))
        self.types: set[str] = set()
        self.kinds: set[str] = set()
        self.subjects: set[str] = set()
        for topic in self.names:
            if topic.endswith(("/*", ".*")):
                self.kinds.add(topic[:-2])
            elif "/" in topic:
                self.subjects.add(topic)
            elif "." in topic:
                self.types.add(topic)
            else:
                self.kinds.add(topic)
        self.all = not self.names or "*" in self.kinds

    def match(self, event: Event) -> bool:
        """Is this event among them?"""
        if self.all or event.type in self.types or event.subject in self.subjects:
            return True
        return bool(self.kinds) and (
            event.type.partition(".")[0] in self.kinds
            or event.subject.partition("/")[0] in self.kinds
        )

    def select(self, events: list[Event]) -> list[Event]:
        """Those of them, in order."""
        return events if self.all else [e for e in events if self.match(e)]
