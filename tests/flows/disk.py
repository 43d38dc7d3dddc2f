"""An appliance on a small disk: a tmpfs in a mount namespace of its own, seen by nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from main import ADMIN_TOKEN
from tests.appliance import ROOT, Appliance
from tests.disk import UNSHARE

SIZE = "6m"


class OnSmallDisk(Appliance):
    """Its folder is to be looked at through its process, which alone sees it."""

    @property
    def token(self) -> str:
        """See Appliance."""
        return Path(f"/proc/{self.pid}/root{self.folder}/{ADMIN_TOKEN}").read_text().strip()

    def launch(self, **environment: str) -> subprocess.Popen[bytes]:
        """See Appliance: each step replaces itself by the next, so the pid is the appliance's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = f'mount -t tmpfs -o size={SIZE} tmpfs "{self.folder}" && exec "$@"'
        serve = [sys.executable, "-m", "api.cli", "serve", "--config", str(self.config_file)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*UNSHARE, "sh", "-c", mount, "sh", *serve],
                cwd=ROOT,
                env={**os.environ, **self.env, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.process
