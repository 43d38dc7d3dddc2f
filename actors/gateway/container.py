"""Argument lists for `docker` and `podman`, whose command lines agree in all that is used here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from actors.gateway.render import fill
from config.model import Container

LABEL = "switchboard.instance"


class Engine:
    """The commands for one gateway's container, by its name."""

    def __init__(self, container: Container, instance: str, gw_id: str) -> None:
        self._container = container
        self._instance = instance
        self._engine = container.engine
        self.name = f"switchboard-{instance[:8]}-{gw_id}"

    def run(
        self, argv: list[str], env: Mapping[str, str], values: dict[str, str], folder: Path
    ) -> list[str]:
        """Create and start it, detached, with the gateway's folder at /run/gateway.

        Of the environment only the names are arguments, which everybody can see: the engine takes
        the values from its own.
        """
        environment = [part for name in env for part in ("--env", name)]
        return [
            self._engine,
            "run",
            "--detach",
            "--name",
            self.name,
            "--label",
            f"{LABEL}={self._instance}",
            "--volume",
            f"{folder}:/run/gateway",
            *environment,
            *(fill(option, values) for option in self._container.options),
            fill(self._container.image, values),
            *argv,
        ]

    def inspect(self) -> list[str]:
        """Its state as JSON (`{"Running": true, "ExitCode": …}`); fails if there is none."""
        return [
            self._engine,
            "inspect",
            "--type",
            "container",
            "--format",
            "{{json .State}}",
            self.name,
        ]

    def wait(self) -> list[str]:
        """Returns when it ends; prints its exit status."""
        return [self._engine, "wait", self.name]

    def logs(self) -> list[str]:
        """Its output from now on, and the last lines before."""
        return [self._engine, "logs", "--follow", "--tail", "50", self.name]

    def stop(self, grace: float) -> list[str]:
        """TERM, and KILL after the grace."""
        return [self._engine, "stop", "--time", str(max(int(grace), 1)), self.name]

    def kill(self) -> list[str]:
        """KILL now."""
        return [self._engine, "kill", self.name]

    def remove(self) -> list[str]:
        """Remove it, running or not. Not being there is no error to us."""
        return [self._engine, "rm", "--force", self.name]

    def execute(self, payload: str) -> list[str]:
        """Run the configured command inside, with the payload as its last argument."""
        return [self._engine, "exec", self.name, *self._container.exec, payload]
