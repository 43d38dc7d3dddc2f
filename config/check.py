"""What types cannot say of a configuration. Pure."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from config.model import Auth, Config, Egress, Gateways, PortRange, Profile
from config.runtime import MOST_DAYS
from config.source import Path
from config.webhooks import check_webhook

Finding = tuple[Path, str]

SURFACES = ("gateway", "egress", "runtime", "system", "events")
_SCOPE = re.compile(r"^(\*|[a-z]+:(\*|ro|rw)|[a-z]+:[A-Za-z0-9_.-]+:(ro|rw)|read:\*)$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as its two parts. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"expected host:port, got: {text!r}")
    host = host.removeprefix("[").removesuffix("]")
    ipaddress.ip_address(host)
    return host, int(port)


def is_scope(text: str) -> bool:
    """Is it `*`, `kind:ro|rw|*`, or `kind:name:ro|rw`?"""
    return _SCOPE.match(text) is not None


# Numbers that may be 0, where it stands for none or for no limit.
_MAY_BE_ZERO = {
    "event_days", "event_count", "gateway_days", "recording_days", "idempotency_hours",
    "requests_per_minute", "memory_mb", "open_files", "linger", "grace", "seconds",
    "egress_days", "cpu", "disk_kb", "disk_free_mb", "retries", "tasks", "record", "snapshot",
    "page", "waiting",
    "webhook_days", "retention_days", "late", "silence",
}  # fmt: skip


def _numbers(value: object, at: Path) -> Iterator[Finding]:
    """Every number must be one that can be waited for or counted to."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _numbers(below, (*at, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        name = str(at[-1])
        if name == "nice":
            return
        if not math.isfinite(value) or value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
            least = "of 0 or more" if name in _MAY_BE_ZERO else "above 0"
            yield at, f"expected a number {least}, got: {value:g}"


def cross_check(config: Config) -> Iterator[Finding]:
    """Yield (path, what is wrong) for each finding."""
    if not config.server.bind:
        yield ("server", "bind"), "expected at least one address"
    for i, address in enumerate(config.server.bind):
        try:
            split_address(address)
        except ValueError as error:
            yield ("server", "bind", i), str(error)
    yield from _auth(config.auth)
    for section in ("server", "limits", "retention", "gateways", "egress", "webhooks", "calls"):
        yield from _numbers(msgspec.to_builtins(getattr(config, section)), (section,))
    yield from _gateways(config.gateways)
    yield from _egress(config.egress)
    if config.calls.retention_days > MOST_DAYS:
        yield ("calls", "retention_days"), f"expected a number from 0 to {MOST_DAYS}"
    for name, webhook in config.webhooks.items():
        yield from check_webhook(name, webhook, config.retention)


def _auth(auth: Auth) -> Iterator[Finding]:
    for i, surface in enumerate(auth.anonymous):
        if surface not in SURFACES:
            yield ("auth", "anonymous", i), f"unknown surface {surface!r}; known: {SURFACES}"
    seen: dict[str, int] = {}
    for i, token in enumerate(auth.tokens):
        at: Path = ("auth", "tokens", i)
        if token.name in seen:
            yield at, f"token {token.name!r} is also auth.tokens[{seen[token.name]}]"
        seen[token.name] = i
        if (token.token is None) == (token.sha256 is None):
            yield at, "expected exactly one of `token` and `sha256`"
        if token.token is not None and len(token.token) < 16:
            yield (*at, "token"), "expected at least 16 characters"
        if token.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", token.sha256):
            yield (*at, "sha256"), "expected 64 hexadecimal digits"
        for j, scope in enumerate(token.scopes):
            if not is_scope(scope):
                yield (*at, "scopes", j), f"expected kind:ro, kind:rw or *, got: {scope!r}"


def _gateways(gateways: Gateways) -> Iterator[Finding]:
    at: Path = ("gateways", "ports")
    ranges: dict[str, PortRange] = {
        "sip": gateways.ports.sip,
        "control": gateways.ports.control,
        "rtp": gateways.ports.rtp,
    }
    for name, ports in ranges.items():
        if not 0 < ports.first <= ports.last <= 65535:
            yield (*at, name), "expected 0 < first <= last <= 65535"
    for name, ports in ranges.items():
        for other, theirs in ranges.items():
            if name < other and ports.first <= theirs.last and theirs.first <= ports.last:
                yield (*at, name), f"overlaps gateways.ports.{other}"
    if gateways.ports.rtp_per_gateway < 4:
        yield (*at, "rtp_per_gateway"), "expected at least 4 (RTP and RTCP of two calls)"
    try:
        ipaddress.ip_address(gateways.address)
    except ValueError:
        yield ("gateways", "address"), f"expected an IP address, got: {gateways.address!r}"
    for name, profile in gateways.profiles.items():
        yield from _profile(("gateways", "profiles", name), name, profile)


def _profile(at: Path, name: str, profile: Profile) -> Iterator[Finding]:
    if not _NAME.match(name):
        yield at, "a profile's name is letters, digits, `_`, `.` and `-`"
    if not profile.command and not profile.use_container:
        yield at, "expected a command"
    if profile.use_container and profile.container is None:
        yield at, "use_container needs a `container` section with an image"
    if profile.ready.when == "control" and profile.control != "ctrl_tcp":
        yield (*at, "ready", "when"), "`control` needs `control: ctrl_tcp`"
    if profile.ready.pattern:
        try:
            re.compile(profile.ready.pattern)
        except re.error as error:
            yield (*at, "ready", "pattern"), f"not a regular expression: {error}"
    if profile.stream is not None and not profile.record:
        yield (*at, "stream"), "needs `record: true`: the sound is taken from the recording"
    for file in profile.files:
        if "/" in file or file in ("", ".", "..") or "\0" in file:
            yield (*at, "files", file), "expected a plain file name"


_SOURCES = (
    "rtsp", "rtsps", "rtmp", "rtmps", "srt", "http", "https", "file", "test", "gateway",
)  # fmt: skip
_FIELDS = {"channel", "user", "app_id", "task_id", "access_token", "workerUid"}


def _egress(egress: Egress) -> Iterator[Finding]:
    for name in ("record", "snapshot", "page"):
        if name not in egress.costs:
            yield ("egress", "costs"), f"expected a cost for `{name}`"
    for name in egress.costs:
        if name not in ("record", "snapshot", "page"):
            yield ("egress", "costs", name), "expected one of: record, snapshot, page"
    if egress.renew * 2 > egress.lease:
        yield ("egress", "renew"), "expected at most half of egress.lease"
    if egress.upload is not None and egress.upload.endpoint:
        yield from _endpoint(egress.upload.endpoint)
    yield from _sources(egress)


def _endpoint(endpoint: str) -> Iterator[Finding]:
    at: Path = ("egress", "upload", "endpoint")
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        yield at, "expected http://HOST[:PORT] or https://HOST[:PORT]"
    elif parts.username or parts.password or parts.query or parts.fragment:
        yield at, "expected neither keys nor a query in it: keys are access_key and secret_key"


def _sources(egress: Egress) -> Iterator[Finding]:
    for channel, users in egress.channels.items():
        at: Path = ("egress", "channels", channel, "users")
        if not users.users:
            yield at, "expected at least one user"
        for user, source in users.users.items():
            scheme = source.url.partition(":")[0]
            if scheme not in _SOURCES or ":" not in source.url:
                yield (*at, user, "url"), f"expected one of {', '.join(_SOURCES)}"
            for field in re.findall(r"\{(\w*)\}", source.url):
                if field not in _FIELDS:
                    known = ", ".join(sorted(_FIELDS))
                    yield (*at, user, "url"), f"unknown field {{{field}}}; known: {known}"
            if source.listen and scheme not in ("rtsp", "rtmp", "srt"):
                yield (*at, user, "listen"), "only RTSP, RTMP and SRT can be waited for"
