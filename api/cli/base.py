"""What all commands share: options, the client, output, and exit statuses.

Exit statuses: 0 done · 1 it failed · 2 usage or configuration · 3 the state folder cannot be
used · 4 the appliance cannot be reached · 5 it refused.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
import httpx

from config.load import find, load
from config.model import Config
from config.source import ConfigError

T = TypeVar("T")

UNREACHABLE = 4
REFUSED = 5

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file (default: switchboard.yaml here, else the packaged defaults).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def fail(message: str, status: int) -> NoReturn:
    """Say what is wrong on standard error and end."""
    click.echo(message, err=True)
    sys.exit(status)


def load_or_exit(path: Path | None) -> Config:
    """The configuration; ends with status 2 and all problems when it cannot be used."""
    return read_or_exit(load, path)


def read_or_exit(read: Callable[[Path | None], T], path: Path | None) -> T:
    """What `read` makes of the file; ends as `load_or_exit`."""
    try:
        return read(path)
    except ConfigError as error:
        fail("\n".join(str(problem) for problem in error.problems), 2)


@dataclass(slots=True)
class Client:
    """Talks to an appliance: the local one, unless told otherwise."""

    url: str
    token: str | None
    # None verifies as browsers do.
    tls: ssl.SSLContext | None = None
    # Said on standard error with the first call.
    note: str = ""

    def call(self, method: str, path: str, body: Any = None, timeout: float = 60.0) -> Any:
        """One operation's answer; ends with status 4 or 5 when there is none."""
        if self.note:
            click.echo(self.note, err=True)
            self.note = ""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            verify = self.tls or True
            with httpx.Client(verify=verify, timeout=timeout, trust_env=False) as client:
                answer = client.request(method, self.url + path, json=body, headers=headers)
        except httpx.HTTPError as error:
            self.unreachable(error)
        try:
            decoded = answer.json()
        except ValueError:
            decoded = {"error": {"message": answer.text[:200]}}
        if answer.is_success:
            return decoded
        problem = decoded.get("error") if isinstance(decoded, dict) else None
        message = problem.get("message", "") if isinstance(problem, dict) else str(decoded)
        details = problem.get("details", {}) if isinstance(problem, dict) else {}
        lines = [f"refused with {answer.status_code}: {message}", *details.get("problems", [])]
        if answer.status_code == 401:
            lines.append("Give a token with --token, $SWITCHBOARD_TOKEN, or run this where the")
            lines.append("state folder's admin.token can be read.")
        fail("\n".join(lines), REFUSED)

    def unreachable(self, error: Exception) -> NoReturn:
        """End with status 4."""
        why = str(error) or str(error.__cause__ or type(error).__name__)
        fail(
            f"no appliance answers at {self.url} ({why}). Is it running? Start it with "
            "`switchboard serve`, or name another with --url.",
            UNREACHABLE,
        )


def local_client(config: Path | None, url: str | None, token: str | None) -> Client:
    """A client for the appliance that the configuration here describes."""
    path = find(config)
    note = ""
    try:
        settings = load(path)
    except ConfigError as error:
        # A broken file must not keep anybody from asking the appliance that runs.
        settings = load(None)
        note = f"{error.problems[0]}; going by the packaged defaults"
    tls = None
    here = url is None or _is_here(url)
    if url is None:
        scheme = "http"
        if settings.server.tls is not None:
            scheme, tls = "https", _just(settings.server.tls.certificate)
        address = settings.server.bind[0].replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104
        url = f"{scheme}://{address}"
    if token is None and here:
        file = Path(settings.state) / "admin.token"
        try:
            token = file.read_text().strip()
        except OSError:
            token = None
    return Client(url.rstrip("/"), token, tls, note)


def _is_here(url: str) -> bool:
    """Is it this machine? The local admin token is for nobody else."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, whatever it begins with


def _just(certificate: str) -> ssl.SSLContext | None:
    """Trust in one certificate, whatever name or address it is for: the local appliance's own."""
    try:
        context = ssl.create_default_context(cafile=certificate)
    except OSError:
        return None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def client_options(command: Callable[..., None]) -> Callable[..., None]:
    """--config, --url and --token, as one `client` argument."""

    def wrapped(
        *args: Any, config: Path | None, url: str | None, token: str | None, **kwargs: Any
    ) -> None:
        command(*args, client=local_client(config, url, token), **kwargs)

    wrapped.__name__ = command.__name__
    wrapped.__doc__ = command.__doc__
    wrapped.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    decorated = config_option(wrapped)
    decorated = click.option("--url", help="Where the appliance is.", envvar="SWITCHBOARD_URL")(
        decorated
    )
    return click.option("--token", help="Token to use.", envvar="SWITCHBOARD_TOKEN")(decorated)


def show_json(value: Any) -> None:
    """Print JSON, indented on a terminal."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def quoted(text: str) -> str:
    """A text as one part of a path or query."""
    return urllib.parse.quote(text, safe="")
