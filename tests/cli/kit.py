"""What the tests of the command line share: run a command as an operator would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.appliance import ROOT


@dataclass
class Done:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with --json."""
        return json.loads(self.out)


async def switchboard(
    *arguments: str, config: Path | None = None, cwd: Path = ROOT, **environment: str
) -> Done:
    """Run `switchboard` with these arguments."""
    command = [sys.executable, "-m", "api.cli", *arguments]
    if config is not None:
        command += ["--config", str(config)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SWITCHBOARD_")}
    with trio.fail_after(30):
        done = await trio.run_process(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
