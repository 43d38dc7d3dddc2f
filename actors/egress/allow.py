"""Which addresses a client may have the appliance speak to."""

from __future__ import annotations

import fnmatch
import ipaddress
import urllib.parse
from collections.abc import Callable

from config.model import Egress
from supervisor.errors import Rejected

# What a page may use without any host: its own data.
_INLINE = ("data", "blob", "about")


def check_rtmp(url: str, hosts: list[str]) -> None:
    """Refuse what is not RTMP to an allowed host. Raises Rejected `invalid`."""
    scheme, host = _parts(url)
    if scheme not in ("rtmp", "rtmps") or not host:
        raise Rejected("invalid", "payload.rtmp_dst: expected rtmp://host/app/stream or rtmps://…")
    if not _named(host, hosts):
        raise Rejected("invalid", f"payload.rtmp_dst: {host!r} is not in egress.rtmp_hosts")


def check_page(url: str, settings: Egress) -> None:
    """Refuse a page that would not be shown. Raises Rejected `invalid`."""
    scheme, host = _parts(url)
    if scheme not in ("http", "https") or not host:
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


def _named(host: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(host, pattern.lower()) for pattern in patterns)


def _private(host: str) -> bool:
    """Is it this machine, or an address that only means something in a network of our own?"""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Browsers read `2130706433` and `0x7f.1` as addresses too.
        return host.replace(".", "").replace("x", "").isalnum() and host[:1].isdigit()
    return not address.is_global


def _parts(url: str) -> tuple[str, str]:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme.lower(), (parts.hostname or "").lower()
    except ValueError:
        return "", ""
