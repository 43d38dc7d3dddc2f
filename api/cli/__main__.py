"""`python -m api.cli` is `switchboard`."""

from api.cli.commands import cli

cli(prog_name="switchboard")
