"""Signatures as standard-webhooks.md has them: `v1`, HMAC-SHA256, one for each key."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence


def sign(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: several while keys are changed, separated by spaces.

    `timestamp` is the Unix time of this try, in seconds.
    """
    content = b"%s.%d.%s" % (id.encode(), timestamp, body)
    digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def headers(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three that every try has."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(keys, id, timestamp, body),
    }
