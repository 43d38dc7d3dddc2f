"""The commands that ask an appliance, and those that need none.

What only one of them needs is imported by it alone: most are over before that would be read.
"""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from api.cli.base import (
    UNREACHABLE,
    Client,
    client_options,
    config_option,
    fail,
    json_option,
    load_or_exit,
    quoted,
    read_or_exit,
    show_json,
)
from api.cli.calls import erase
from api.cli.webhooks import webhooks
from config import VERSION
from config.load import find, state_folder
from supervisor.errors import Fatal


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Switchboard: supervises SIP media gateways, their calls, recordings and streams.

    Exit statuses: 0 done, 1 it failed, 2 usage or configuration, 3 the state folder cannot be
    used, 4 the appliance cannot be reached, 5 it refused.
    """


@cli.command()
@config_option
def serve(config: Path | None) -> None:
    """Run the appliance in the foreground."""
    # The appliance is all of it: by name, because it is made of us too.
    # Nothing of it is ever garbage: looking for some would take as long again.
    gc.disable()
    appliance = importlib.import_module("main")
    gc.freeze()
    gc.enable()
    appliance.serve(config)


@cli.command()
@client_options
@json_option
def check(client: Client, as_json: bool) -> None:
    """Check the configuration; with an appliance running, say what a reload would change."""
    context = click.get_current_context()
    path = find(context.params.get("config"))
    load_or_exit(path)
    changes: list[dict[str, Any]] | None = None
    try:
        changes = client.call("POST", "/system/reload", {"dry": True})["changes"]
    except SystemExit as ended:
        if ended.code != UNREACHABLE:
            raise
    if as_json:
        show_json({"ok": True, "file": str(path) if path else None, "changes": changes})
        return
    click.echo(f"{path or 'the packaged defaults'}: good")
    if changes is None:
        return
    if not changes:
        click.echo("A reload would change nothing.")
    for change in changes:
        click.echo(f"  {change['path']}: {_values(change)}{change['effect']}")


def _values(change: dict[str, Any]) -> str:
    """Both values; nothing for what came or went as a whole section: its path names it."""
    if isinstance(change["old"], dict) or isinstance(change["new"], dict):
        return ""
    return f"{change['old']!r} -> {change['new']!r}; "


@cli.command()
@client_options
@json_option
def reload(client: Client, as_json: bool) -> None:
    """Load the configuration again and apply the difference."""
    answer = client.call("POST", "/system/reload", {})
    if as_json:
        show_json(answer)
        return
    for change in answer["changes"]:
        click.echo(f"{change['path']}: {change['effect']}")
    if not answer["changes"]:
        click.echo("Nothing has changed.")


@cli.command()
@client_options
@json_option
def tree(client: Client, as_json: bool) -> None:
    """Show everything that runs."""
    answer = client.call("GET", "/system/tree")
    if as_json:
        show_json(answer)
        return
    top = Tree(f"up {answer['uptime']:.0f} s · {_counts(answer['counts'])}")
    for node in answer["tree"].get("children", []):
        _grow(top, node)
    Console().print(top)


_COLOURS = {"running": "green", "quarantined": "red", "backoff": "yellow", "stopping": "yellow"}


def _counts(counts: dict[str, int]) -> str:
    return " · ".join(f"{v} {k.replace('_', ' ')}" for k, v in counts.items() if v)


def _grow(above: Tree, node: dict[str, Any]) -> None:
    colour = _COLOURS.get(node["state"], "white")
    text = f"[bold]{node['path'].rpartition('/')[2]}[/] [{colour}]{node['state']}[/]"
    if node.get("restarts"):
        text += f" · {node['restarts']} restarts, {node['restarts_left']} left"
    mail = node.get("mailbox")
    if mail is not None:
        text += f" · mailbox {mail['depth']}/{mail['size']} (most {mail['high_water']})"
        text += f" · {mail['handled']} handled"
        if mail.get("p99_ms") is not None:
            text += f", p50 {mail['p50_ms']} ms, p99 {mail['p99_ms']} ms"
    process = node.get("os_process")
    if process:
        text += f" · pid {process['pid']}"
        if process.get("memory_bytes"):
            text += f", {process['memory_bytes'] // 1048576} MB, {process['cpu_seconds']} s"
    if node.get("doing"):
        text += f" · {node['doing']} for {node['doing_for']:.1f} s"
    if node.get("stuck"):
        text += " [red]STUCK[/]"
    if node.get("last_error"):
        text += f" · [red]{node['last_error']}[/]"
    branch = above.add(text)
    for below in node.get("children", []):
        _grow(branch, below)


@cli.command()
@click.argument("path")
@client_options
@json_option
def restart(client: Client, path: str, as_json: bool) -> None:
    """Restart an actor by its path in the tree, or end its backoff or quarantine."""
    answer = client.call("POST", f"/system/actors/{path.strip('/')}/restart")
    if as_json:
        show_json(answer)
    else:
        click.echo(f"{answer['path']} is {answer['state']}")
    if answer["state"] != "running":
        sys.exit(1)


@cli.command()
@click.option("--since", help="Resume after this token (EPOCH:SEQ); 0 for all that is kept.")
@click.option("--topics", default="", help="Only these: subjects, types or kinds, with commas.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@client_options
@json_option
def events(
    client: Client, since: str | None, topics: str, count: int | None, as_json: bool
) -> None:
    """Follow the event log; goes on after the connection was lost."""
    try:
        import trio

        from api.cli.follow import follow

        trio.run(follow, client, since, topics, count, as_json)
    except* KeyboardInterrupt:
        sys.exit(0)


@cli.group()
def token() -> None:
    """Make, list and revoke tokens."""


@token.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="gateway:rw, events:ro, …")
@client_options
@json_option
def token_create(client: Client, name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make a token and print it, this once."""
    answer = client.call("POST", "/system/tokens", {"name": name, "scopes": list(scopes)})
    if as_json:
        show_json(answer)
    else:
        click.echo(answer["token"])


@token.command("list")
@client_options
@json_option
def token_list(client: Client, as_json: bool) -> None:
    """List the tokens that were made at run time."""
    answer = client.call("GET", "/system/tokens")
    if as_json:
        show_json(answer["tokens"])
        return
    table = Table("name", "scopes", "created")
    for entry in answer["tokens"]:
        table.add_row(entry["name"], " ".join(entry["scopes"]), entry["created"])
    Console().print(table)


@token.command("revoke")
@click.argument("name")
@client_options
@json_option
def token_revoke(client: Client, name: str, as_json: bool) -> None:
    """Revoke a token."""
    answer = client.call("DELETE", f"/system/tokens/{quoted(name)}")
    if as_json:
        show_json(answer)
    else:
        click.echo(f"{answer['revoked']} is revoked")


cli.add_command(webhooks)
cli.add_command(erase)


@cli.command()
@click.argument("name", required=False)
@client_options
@json_option
def backup(client: Client, name: str | None, as_json: bool) -> None:
    """Copy the database to the state folder's `backups`, while the appliance runs."""
    body = {} if name is None else {"name": name}
    answer = client.call("POST", "/system/backup", body, timeout=600.0)
    if as_json:
        show_json(answer)
    else:
        click.echo(f"{answer['file']} ({answer['size']} bytes)")


@cli.command()
@click.argument("backup", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@config_option
@json_option
def restore(backup: Path, config: Path | None, as_json: bool) -> None:
    """Put a backup in the place of the database; the appliance must not be running."""
    from supervisor.database import restore as put_back

    folder = read_or_exit(state_folder, find(config))
    try:
        kept = put_back(backup, folder)
    except Fatal as error:
        fail(str(error), 3)
    if as_json:
        show_json({"restored": str(backup), "kept": str(kept) if kept else None})
    elif kept is not None:
        click.echo(f"restored; what was there before is {kept}")
    else:
        click.echo("restored")


@cli.command()
@client_options
@json_option
def version(client: Client, as_json: bool) -> None:
    """Print the version here, and that of the appliance when one answers."""
    found: dict[str, Any] = {"version": VERSION, "appliance": None}
    with open("/dev/null", "w") as nowhere:
        before, sys.stderr = sys.stderr, nowhere
        try:
            found["appliance"] = client.call("GET", "/version", timeout=2.0)
        except SystemExit:
            found["appliance"] = None
        finally:
            sys.stderr = before
    if as_json:
        show_json(found)
        return
    click.echo(f"switchboard {VERSION}")
    if found["appliance"]:
        click.echo(f"appliance at {client.url}: {found['appliance']['version']}")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell: `eval "$(switchboard completion bash)"`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "switchboard", "_SWITCHBOARD_COMPLETE").source())
