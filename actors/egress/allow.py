"""Which addresses a client may have the appliance speak to."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
import unicodedata
import urllib.parse
from collections.abc import Callable

from config.model import Egress
from supervisor.errors import Rejected

# What a page may use without any host: its own data.
_INLINE = ("data", "blob", "about")
# Names of networks of our own (RFC 6761, 6762, 8375), and what programs there take for such.
_OURS = (".localhost", ".local", ".internal", ".home.arpa", ".localdomain")
# A host whose last part is a number is an address to every browser (WHATWG URL, "ends in a
# number"), a name otherwise: `9to5.example` is one.
_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$")
_CARRY_IPV4 = [ipaddress.ip_network(n) for n in ("::/96", "::ffff:0:0/96", "64:ff9b::/96")]


def check_rtmp(url: str, hosts: list[str]) -> None:
    """Refuse what is not RTMP to an allowed host. Raises Rejected `invalid`."""
    scheme, host = _parts(url)
    if scheme not in ("rtmp", "rtmps") or not host or not url.isprintable():
        raise Rejected("invalid", "payload.rtmp_dst: expected rtmp://host/app/stream or rtmps://…")
    if not _named(host, hosts):
        raise Rejected("invalid", f"payload.rtmp_dst: {host!r} is not in egress.rtmp_hosts")


def check_page(url: str, settings: Egress) -> None:
    """Refuse a page that would not be shown. Raises Rejected `invalid`."""
    scheme, host = _parts(url)
    if scheme not in ("http", "https") or not host or not url.isprintable():
        raise Rejected("invalid", "payload.url: expected http://… or https://…")
    if not Allowed(lambda: settings).url(url):
        raise Rejected("invalid", f"payload.url: {host!r} is not allowed by egress.page_hosts")


class Allowed:
    """The allow list of pages, by the configuration in force when it is asked."""

    def __init__(self, settings: Callable[[], Egress]) -> None:
        self._settings = settings

    def url(self, url: str) -> bool:
        """May a page, or something on a page, fetch this?"""
        scheme, host = _parts(url)
        if scheme in _INLINE:
            return True
        if scheme not in ("http", "https", "ws", "wss") or not host:
            return False
        settings = self._settings()
        if _named(host, [p for p in settings.page_hosts if p != "*"]):
            return True
        if "*" not in settings.page_hosts:
            return False
        return settings.page_private or not _private(host)

    def reaches(self, host: str, address: str) -> bool:
        """May a connection go to this address, which a host's name turned out to have?

        A name of the internet can lead into the network of the appliance.
        """
        settings = self._settings()
        if _named(host.lower(), [p for p in settings.page_hosts if p != "*"]):
            return True
        return settings.page_private or _is_global(address)


def _named(host: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(host, pattern.lower()) for pattern in patterns)


def _private(host: str) -> bool:
    """Is it this machine, or an address that only means something in a network of our own?"""
    if ":" in host or _NUMBER.search(host):
        return not _is_global(host)
    return "." not in host or host.endswith(_OURS)


def _is_global(host: str) -> bool:
    """Is an address, in any of its spellings, one of the internet?"""
    try:
        # `0x7f.1` and `017700000001` are 127.0.0.1 to browsers as they are to inet_aton(3).
        plain = host if ":" in host else socket.inet_ntoa(socket.inet_aton(host))
        address = ipaddress.ip_address(plain)
    except (ValueError, OSError):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.sixtofour
        if any(address in network for network in _CARRY_IPV4):
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            address = carried
    return address.is_global and not address.is_multicast


def _parts(url: str) -> tuple[str, str]:
    """Scheme and host as browsers understand them; empty where it is no address."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises ValueError where it is no number
    except ValueError:
        return "", ""
    if "\\" in parts.netloc or " " in parts.netloc or not parts.netloc.isprintable():
        # Browsers take `\` for `/`: the host would be another than what we see.
        return "", ""
    host = unicodedata.normalize("NFKC", urllib.parse.unquote(host)).replace("\u3002", ".")
    return parts.scheme.lower(), host.lower().rstrip(".")
