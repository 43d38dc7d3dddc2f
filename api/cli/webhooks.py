"""`switchboard webhooks`: how they are, their dead letters, and what to do about these."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from api.cli.base import Client, client_options, json_option, quoted, show_json


@click.group(invoke_without_command=True)
@click.pass_context
@client_options
@json_option
def webhooks(context: click.Context, client: Client, as_json: bool) -> None:
    """List the webhooks, or look after one of them."""
    if context.invoked_subcommand is not None:
        return
    answer = client.call("GET", "/system/webhooks")
    if as_json:
        show_json(answer["webhooks"])
        return
    table = Table("name", "state", "pending", "dead", "behind", "last success", "last error", "url")
    for it in answer["webhooks"]:
        state = f"{it['state']}: {it['reason']}" if it["reason"] else it["state"]
        counts = [str(it[key]) for key in ("pending", "dead", "behind")]
        table.add_row(it["name"], state, *counts, it["last_success"], it["last_error"], it["url"])
    Console().print(table)


def _pages(client: Client, name: str, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        path = f"/system/webhooks/{quoted(name)}/deliveries?state={state}&limit=500&after={after}"
        page = client.call("GET", path)
        found += page["deliveries"]
        if page["next"] is None:
            return found
        after = page["next"]


@webhooks.command("dead")
@click.argument("name")
@client_options
@json_option
def dead(client: Client, name: str, as_json: bool) -> None:
    """List what could not be delivered, the newest first."""
    found = _pages(client, name, "dead")
    if as_json:
        show_json(found)
        return
    table = Table("id", "type", "subject", "tries", "last try", "error")
    for it in found:
        row = (it["id"], it["type"], it["subject"], str(it["attempts"]), it["changed"], it["error"])
        table.add_row(*row)
    Console().print(table)


@webhooks.command("redrive")
@click.argument("name")
@click.argument("ids", nargs=-1)
@client_options
@json_option
def redrive(client: Client, name: str, ids: tuple[str, ...], as_json: bool) -> None:
    """Send dead letters again: all, or those with these ids."""
    body = {"ids": list(ids)} if ids else {}
    answer = client.call("POST", f"/system/webhooks/{quoted(name)}/redrive", body)
    if as_json:
        show_json(answer)
    else:
        click.echo(f"{answer['redriven']} are sent again, {answer['left']} are dead still")
    if ids and answer["redriven"] < len(set(ids)):
        sys.exit(1)


@webhooks.command("enable")
@click.argument("name")
@client_options
@json_option
def enable(client: Client, name: str, as_json: bool) -> None:
    """Go on with a webhook that was disabled."""
    answer = client.call("POST", f"/system/webhooks/{quoted(name)}/enable")
    if as_json:
        show_json(answer)
    else:
        click.echo(f"{name} {'goes on' if answer['was_disabled'] else 'was not disabled'}")


@webhooks.command("test")
@click.argument("name")
@client_options
@json_option
def test(client: Client, name: str, as_json: bool) -> None:
    """Send a test now and print what came back."""
    answer = client.call("POST", f"/system/webhooks/{quoted(name)}/test", timeout=140.0)
    if as_json:
        show_json(answer)
    elif answer["status"] is None:
        click.echo(f"no answer: {answer['error']}")
    else:
        click.echo(f"answered {answer['status']} in {answer['seconds'] * 1000:.0f} ms")
    if not answer["ok"]:
        sys.exit(1)
