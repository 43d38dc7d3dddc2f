"""From bodies to messages of calls, and from rows to answers."""

from __future__ import annotations

import hashlib

import msgspec

from actors.call import linked, lookup, records, timeline
from actors.call.linked import Linked
from actors.call.lookup import KeptEvent
from actors.call.messages import Batch, EventRow, Json
from actors.call.records import Call as Row
from actors.call.stamp import normal
from actors.call.story import Story
from actors.call.summaries import story_of
from actors.call.summary import summarize
from api.call_bodies import CallView, EventBody
from api.dispatch import check_depth
from api.errors import ApiError
from supervisor.transaction import Reading

# A page of events has at most so many bytes of payloads. It is read so many events at
# once: each time the call's events are put in order.
PAGE = 4 * 1024 * 1024
SOME = 1000
# Of one event, in bytes: what is larger belongs into a file.
LARGEST = 256 * 1024

_canonical = msgspec.json.Encoder(order="deterministic").encode

# -- parsing -----------------------------------------------------------------------------


def batch_of(events: list[EventBody], depth: int) -> Batch:
    """A batch as it is kept; payloads may be nested so deep. Raises ApiError."""
    rows = []
    for i, event in enumerate(events):
        try:
            ts = normal(event.ts)
        except ValueError as error:
            raise wrong(f"events[{i}].ts", error) from error
        payload = _canonical(event.payload or {})
        check_depth(payload, depth)
        if len(payload) > LARGEST:
            raise wrong(f"events[{i}].payload", ValueError(f"larger than {LARGEST} bytes"))
        if event.idempotency_key is not None:
            key = f"key:{event.idempotency_key}"
        else:
            same = b"%s\0%s\0%s" % (ts.encode(), event.type.encode(), payload)
            key = hashlib.blake2b(same, digest_size=16).hexdigest()
        rows.append(EventRow(ts, event.type, payload.decode(), key))
    return Batch(tuple(rows), records.tell(rows))


def wrong(field: str, error: ValueError) -> ApiError:
    """The answer to a field that cannot be."""
    return ApiError(422, "invalid", f"{field}: {error}", {"field": field})


def stamp(field: str, text: str) -> str:
    """A timestamp as it is kept. Raises ApiError with the field."""
    try:
        return normal(text)
    except ValueError as error:
        raise wrong(field, error) from error


def digest(*fields: object) -> str:
    """What tells a repeated body from another: its fields as they are kept."""
    return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()


# -- reading, in a thread ---------------------------------------------------------------


def view(row: Row, summary: Json | None = None, files: list[Linked] | None = None) -> CallView:
    """A call as clients see it."""
    said, counted = row.duration_seconds, row.duration_computed
    differs = said is not None and counted is not None and abs(said - counted) > records.TOLERANCE
    same = {
        name: getattr(row, name)
        for name in CallView.__struct_fields__
        if name not in ("summary", "files", "duration_differs")
    }
    return CallView(**same, duration_differs=differs, summary=summary, files=files)


def whole(db: Reading, call_id: str, silence: int) -> tuple[Row, Json, list[Linked]]:
    """A call, its summary as of now, and its files. Raises Rejected."""
    row = records.found(db, call_id)
    summary = row.summary
    if summary is None:
        story = story_of(row, lookup.events(db, row.number))
        summary = summarize(story, row.status, silence)
        row.outcome = summary["outcome"]
    return row, summary, linked.files_of(db, row)


def events_of(
    db: Reading, call_id: str, after: tuple[str, int], limit: int
) -> tuple[list[KeptEvent], bool]:
    """A page of events, and whether there are more. Raises Rejected."""
    number = records.found(db, call_id).number
    found: list[KeptEvent] = []
    size = 0
    while True:
        some = lookup.events(db, number, after, SOME)
        for event in some:
            if found and (len(found) == limit or size + len(event.payload) > PAGE):
                return found, True
            found.append(event)
            size += len(event.payload)
        if len(some) < SOME:
            return found, False
        after = (some[-1].ts, some[-1].place)


def story_of_call(db: Reading, call_id: str) -> tuple[Row, Story]:
    """A call and what happened in it. Raises Rejected."""
    row, events = lookup.with_events(db, call_id)
    return row, story_of(row, events)


def timeline_of(db: Reading, call_id: str, silence: int) -> Json:
    """The timeline that was sent, or one that is computed. Raises Rejected."""
    row, story = story_of_call(db, call_id)
    if row.timeline is not None:
        return {"call_id": call_id, "source": "gateway", "timeline": row.timeline}
    drawn = timeline.compute(story, row.started_at, silence)
    return {"call_id": call_id, "source": "computed", "timeline": drawn}
