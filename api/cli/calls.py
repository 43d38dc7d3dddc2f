"""`switchboard erase`: what there is of one caller goes."""

from __future__ import annotations

import click

from api.cli.base import Client, client_options, json_option, show_json

# All calls of a number may be many.
PATIENCE = 660.0


@click.command()
@click.argument("number")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
@json_option
def erase(number: str, yes: bool, client: Client, as_json: bool) -> None:
    """Erase all that there is of a caller, by NUMBER: calls, events, recordings, transcripts.

    It cannot be brought back; that it was done is kept, and not of whom. Backups keep what they
    have.
    """
    if not yes:
        click.confirm(f"Erase all calls of {number} for good?", abort=True, err=True)
    done = client.call("POST", "/internal/v1/erasures", {"number": number}, timeout=PATIENCE)
    if as_json:
        show_json(done)
        return
    click.echo(
        f"erased: {done['calls']} calls with {done['events']} events, {done['files']} recordings"
        f" and tasks, {done['rejections']} rejections"
    )
