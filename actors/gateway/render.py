"""From a start request and a profile to an argument list, an environment and files. Pure."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from actors.gateway.messages import Json
from actors.gateway.ports import Assigned
from config.model import Profile
from supervisor.errors import Rejected
from supervisor.log import MASK, is_secret

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Fields of contracts/gateway.md that may be absent: a template may still name them.
_OPTIONAL = ("type", "from_id", "prefix", "rtmp_dst", "dial", "api_key", "recipient_mail")


@dataclass(frozen=True, slots=True)
class Rendered:
    """What to launch."""

    argv: list[str]
    env: dict[str, str]
    files: dict[str, str]
    folder: Path


def check_fields(request: Json) -> None:
    """Refuse texts that could break out of a line of a rendered file.

    Raises Rejected `invalid`, naming the field.
    """
    for name, value in request.items():
        if isinstance(value, str) and _CONTROL.search(value):
            raise Rejected("invalid", f"{name}: control characters are not allowed")


def secrets(request: Json) -> list[str]:
    """Values of a request that must not be told on: of keys that name secrets, and stream keys."""
    return [
        value
        for name, value in request.items()
        if isinstance(value, str) and len(value) >= 4 and (is_secret(name) or name == "rtmp_dst")
    ]


def scrub(text: str, hidden: list[str]) -> str:
    """A text without these values, for what is kept and shown."""
    for value in hidden:
        text = text.replace(value, MASK)
    return text


def fields(
    request: Json, address: str, ports: Assigned, folder: Path, recordings: Path
) -> dict[str, str]:
    """All that a template may name, as texts. Nested values are JSON."""
    found = dict.fromkeys(_OPTIONAL, "")
    for name, value in request.items():
        if value is None:
            continue
        found[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    found.update(
        address=address,
        sip_port=str(ports.sip),
        control_port=str(ports.control),
        rtp_first=str(ports.rtp_first),
        rtp_last=str(ports.rtp_last),
        folder=str(folder),
        recordings=str(recordings),
        python=sys.executable,
    )
    return found


def fill(template: str, values: dict[str, str]) -> str:
    """Replace `{name}`; what is no known name stays as it is, so that JSON needs no escapes."""
    return _FIELD.sub(lambda m: values.get(m[1], m[0]), template)


def render(profile: Profile, request: Json, values: dict[str, str], folder: Path) -> Rendered:
    """The profile's templates, filled. The request is also there as `request.json`."""
    env = {
        f"GATEWAY_{name.upper()}": value
        for name, value in values.items()
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and "\0" not in value
    }
    env.update({name: fill(value, values) for name, value in profile.env.items()})
    files = {name: fill(text, values) for name, text in profile.files.items()}
    files["request.json"] = msgspec.json.encode(request).decode()
    return Rendered(
        argv=[fill(part, values) for part in profile.command],
        env=env,
        files=files,
        folder=Path(profile.folder).absolute() if profile.folder else folder,
    )


def write_files(rendered: Rendered, folder: Path) -> None:
    """Put the files where the gateway finds them, readable by us alone (they may hold secrets)."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in rendered.files.items():
        path = folder / name
        path.write_text(text, "utf-8")
        path.chmod(0o600)
