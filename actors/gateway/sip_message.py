"""One SIP MESSAGE over UDP (RFC 3428), sent and answered.

baresip 1.0 has no command for it, so the text goes out from here, in the gateway's name.
"""

from __future__ import annotations

import re
import secrets

import trio

from supervisor.errors import Rejected

# RFC 3261 §17.1.2.2: retransmit after T1, doubling up to T2.
T1, T2 = 0.5, 4.0
TIMEOUT = 8.0

_URI = re.compile(r"^sips?:(?:[^@\s<>;\"]+@)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::(\d{1,5}))?")
_STATUS = re.compile(rb"^SIP/2\.0 (\d{3}) ?([^\r\n]*)")


def request(uri: str, sender: str, local: tuple[str, int], text: str, call_id: str) -> bytes:
    """The datagram. `uri` and `sender` are SIP URIs."""
    body = text.encode()
    head = (
        f"MESSAGE {uri} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {local[0]}:{local[1]};rport;branch=z9hG4bK{secrets.token_hex(8)}\r\n"
        f"Max-Forwards: 70\r\n"
        f"From: <{sender}>;tag={secrets.token_hex(4)}\r\n"
        f"To: <{uri}>\r\n"
        f"Call-ID: {call_id}\r\n"
        f"CSeq: 1 MESSAGE\r\n"
        f"Content-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def send(uri: str, sender: str, address: str, text: str) -> int:
    """Send a text and return the final status (200 to 299).

    Raises Rejected: `invalid` for an address that is none, `chat_refused` with the peer's status,
    `no_answer`.
    """
    match = _URI.match(uri)
    if match is None or re.search(r"[\r\n\s<>\"]", uri):
        raise Rejected("invalid", f"{uri[:80]!r} is no SIP address")
    host, port = match[1].strip("[]"), int(match[2] or 5060)
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    try:
        with trio.fail_after(TIMEOUT):
            found = await trio.socket.getaddrinfo(
                host, port, family=family, type=trio.socket.SOCK_DGRAM
            )
            with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as sock:
                await sock.bind((address, 0))
                call_id = secrets.token_hex(12)
                datagram = request(uri, sender, sock.getsockname()[:2], text, call_id)
                return await _exchange(sock, datagram, found[0][4], call_id.encode())
    except trio.TooSlowError:
        raise Rejected("no_answer", f"{uri} did not answer within {TIMEOUT:g} s") from None
    except (OSError, UnicodeError, OverflowError) as error:
        # UnicodeError: a name with an empty or too long part is refused before it is looked up.
        raise Rejected("no_answer", f"{uri} cannot be reached: {error}") from error


async def _exchange(
    sock: trio.socket.SocketType, datagram: bytes, peer: tuple[object, ...], call_id: bytes
) -> int:
    wait = T1
    while True:
        await sock.sendto(datagram, peer)
        with trio.move_on_after(wait):
            while True:
                data, _ = await sock.recvfrom(65535)
                match = _STATUS.match(data)
                if match is None or call_id not in data:
                    continue
                status = int(match[1])
                if status >= 300:
                    reason = match[2].decode("latin-1")
                    raise Rejected("chat_refused", f"the peer answered {status} {reason}".strip())
                if status >= 200:
                    return status
        wait = min(wait * 2, T2)
