"""Which events an endpoint is told of."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.event import Event, Topics

KIND = "webhook"


class Selection:
    """The topics of an endpoint, and those of them of which a subject is told once.

    What webhooks tell of themselves (`webhook.dead_letter`, …) is not among `*`: a receiver that is
    away would be sent word of each of its own failures. It must be named.
    """

    def __init__(self, topics: Sequence[str], once: Sequence[str] = ()) -> None:
        self._topics = Topics(topics)
        self._once = Topics(once) if once else None

    def wants(self, event: Event) -> bool:
        """Is it told of this one?"""
        topics = self._topics
        if event.type.partition(".")[0] != KIND:
            return topics.match(event)
        return (
            KIND in topics.kinds or event.type in topics.types or event.subject in topics.subjects
        )

    def is_once(self, event: Event) -> bool:
        """Is this one of those that a subject has only one of?"""
        return self._once is not None and self._once.match(event)
