"""One try over HTTP: what is sent, and what came of it. Knows nothing of retries."""

from __future__ import annotations

import datetime
import email.utils
import ssl
import time
from collections.abc import Callable

import httpx
import msgspec
import trio

from actors.webhook.delivery_records import Letter
from actors.webhook.machine import Outcome
from actors.webhook.signing import headers
from config import VERSION
from config.model import Webhook
from config.webhooks import key, secrets_of

# Of an answer's body nothing is needed: what is small is read, so that the connection can be used
# again, and the beginning is kept for whoever looks for the reason of a failure.
MAX_ANSWER = 64 * 1024
SHOWN = 500

_encode = msgspec.json.Encoder().encode


class Sender:
    """The client of one endpoint: its connections are kept open in between."""

    def __init__(self, section: Webhook, tls: Callable[[], ssl.SSLContext]) -> None:
        self._section = section
        self._keys = [key(secret) for secret in secrets_of(section)]
        # For http:// a context that trusts nobody: making one that does takes its time, and a
        # redirect to https:// is not followed.
        secure = section.url.startswith("https:")
        context = tls() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        at_once = section.concurrency + 1  # and a test
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            # The deadline is for the whole of it: one that sends a byte now and then is slow.
            timeout=None,  # noqa: S113 - see `post`
            limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once),
            headers={
                "user-agent": f"Switchboard/{VERSION}",
                "accept-encoding": "identity",
                **section.headers,
            },
        )

    def body(self, letter: Letter) -> bytes:
        """What is sent for an event: the payload of the specification, or just its `data`."""
        data = msgspec.Raw(letter.data.encode())
        if self._section.body == "data":
            return bytes(data)
        return _encode(
            {
                "type": letter.type,
                "timestamp": letter.ts,
                "data": data,
                "subject": letter.subject,
                "seq": letter.seq,
                "token": f"{letter.epoch}:{letter.seq}",
            }
        )

    async def post(self, id: str, body: bytes) -> Outcome:
        """Send it once. Never raises for what a network or a receiver does."""
        began = trio.current_time()
        status, answer, error = None, b"", f"no answer within {self._section.timeout:g} s"
        retry_after = None
        signed = headers(self._keys, id, int(time.time()), body)
        with trio.move_on_after(self._section.timeout) as deadline:
            try:
                async with self._client.stream(
                    "POST",
                    self._section.url,
                    content=body,
                    headers={"content-type": "application/json", **signed},
                ) as response:
                    # From here on it is answered, whatever becomes of the answer's body.
                    status, error = response.status_code, ""
                    retry_after = wait_of(response.headers.get("retry-after"), time.time())
                    async for chunk in response.aiter_raw():
                        answer += chunk
                        if len(answer) >= MAX_ANSWER:
                            # Not `break`: the generators inside of the library would be left
                            # unfinished, and cancelled they end one after the other.
                            deadline.cancel()
            except (httpx.HTTPError, httpx.InvalidURL) as failed:
                error = _words(failed)
        seconds = round(trio.current_time() - began, 4)
        shown = answer[:SHOWN].decode("utf-8", "replace").replace("\0", "")
        return Outcome(status, "" if status else error, retry_after, seconds, shown)

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()


def wait_of(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After asks for: a number, or a date; None for anything else."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    return max(until.timestamp() - now, 0.0)


def _words(error: Exception) -> str:
    """Why there is no answer: without the URL or anything that came, either may hold a key."""
    match error:
        case httpx.ConnectError():
            return f"no connection: {_cause(error)}"
        case httpx.RemoteProtocolError() if "disconnected" in str(error):
            return "the connection was closed without an answer"
        case httpx.RemoteProtocolError():
            return "what came is no HTTP"
        case httpx.NetworkError():
            return "the connection was lost"
        case _:
            return type(error).__name__


def _cause(error: BaseException) -> str:
    """The first in the chain that has words: what TLS refuses is at its end."""
    found: BaseException | None = error
    while found is not None:
        if str(found):
            return str(found)
        found = found.__cause__ or found.__context__
    return type(error).__name__
