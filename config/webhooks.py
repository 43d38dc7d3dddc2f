"""What types cannot say of a webhook, its key among it. Pure."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterator, Sequence

from config.model import Retention, Webhook
from config.source import Path

Finding = tuple[Path, str]

PREFIX = "whsec_"
# standard-webhooks.md, "Signature scheme": 192 to 512 bits.
SHORTEST_KEY, LONGEST_KEY = 24, 64
# Requests under way at once are sockets, and a time that a stop or a test may have to wait for.
MOST_CONCURRENT, LONGEST_TIMEOUT = 64, 120.0
MAX_TOPICS = 64

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)")
_TOPIC = re.compile(
    r"^(\*|[a-z][a-z0-9_]*([./]\*)?|[a-z][a-z0-9_]*\.[a-z0-9_.]+|[a-z]\w*/[^\s,*]+)$"
)
_HEADER = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
# Those that are part of the message, or that the client makes itself.
_OURS = {"content-type", "content-length", "host", "transfer-encoding", "connection"}


def key(secret: str) -> bytes:
    """The bytes of a secret. Raises ValueError, without the secret in it."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"expected {PREFIX} and base64")
    text = secret.removeprefix(PREFIX).rstrip("=")
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        # Not chained: what cannot be decoded would be told with it.
        raise ValueError(f"what follows {PREFIX} is no base64") from None
    if not SHORTEST_KEY <= len(found) <= LONGEST_KEY:
        raise ValueError(f"expected {SHORTEST_KEY} to {LONGEST_KEY} bytes, got: {len(found)}")
    return found


def secrets_of(webhook: Webhook) -> list[str]:
    """Its secret, or all of them."""
    return [webhook.secret] if isinstance(webhook.secret, str) else webhook.secret


def shown_url(url: str) -> str:
    """A URL as it may be shown: its query may hold a key."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((*parts[:3], "***" if parts.query else "", ""))


def check_webhook(name: str, webhook: Webhook, retention: Retention) -> Iterator[Finding]:
    """Yield (path, what is wrong) for each finding."""
    at: Path = ("webhooks", name)
    if not _NAME.match(name):
        yield at, "a webhook's name is letters, digits, `_`, `.` and `-`"
    wrong = _wrong_url(webhook.url)
    if wrong:
        yield (*at, "url"), wrong
    yield from _secrets(at, webhook)
    if not webhook.topics:
        yield (*at, "topics"), "expected at least one; `*` is everything"
    yield from _topics((*at, "topics"), webhook.topics)
    yield from _topics((*at, "once"), webhook.once)
    yield from _headers((*at, "headers"), webhook.headers)
    if webhook.backoff_first > webhook.backoff_cap:
        yield (*at, "backoff_first"), "expected no more than `backoff_cap`"
    if webhook.timeout > LONGEST_TIMEOUT:
        yield (*at, "timeout"), f"expected at most {LONGEST_TIMEOUT:g}"
    if webhook.concurrency > MOST_CONCURRENT:
        yield (*at, "concurrency"), f"expected at most {MOST_CONCURRENT}"
    if webhook.once and 0 < retention.webhook_days * 24 < webhook.once_hours:
        # What was told is known from the deliveries that are kept.
        yield (*at, "once_hours"), "expected no more than `retention.webhook_days`"


def _wrong_url(url: str) -> str | None:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        # As it is looked up; UnicodeError is a ValueError.
        (parts.hostname or "").encode("idna")
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "expected http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "a name and password belong into `headers`, as Authorization"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "has characters that must be written as %XX"
    return None


def _secrets(at: Path, webhook: Webhook) -> Iterator[Finding]:
    found = secrets_of(webhook)
    if not found:
        yield (*at, "secret"), "expected at least one"
    for i, secret in enumerate(found):
        place: Path = (*at, "secret") if isinstance(webhook.secret, str) else (*at, "secret", i)
        try:
            key(secret)
        except ValueError as error:
            yield place, str(error)


def _topics(at: Path, topics: Sequence[str]) -> Iterator[Finding]:
    if len(topics) > MAX_TOPICS:
        yield at, f"expected at most {MAX_TOPICS}"
    for i, topic in enumerate(topics):
        if not _TOPIC.match(topic):
            yield (
                (*at, i),
                "expected a subject (gateway/gw01), a type (gateway.started), a kind or *",
            )


def _headers(at: Path, headers: dict[str, str]) -> Iterator[Finding]:
    for name, value in headers.items():
        lowered = name.lower()
        if not _HEADER.match(name):
            yield (*at, name), "is no name for a header"
        elif lowered in _OURS or lowered.startswith("webhook-"):
            yield (*at, name), "is set by the appliance itself"
        if not value.isascii() or not value.isprintable():
            yield (*at, name), "expected printable ASCII"
