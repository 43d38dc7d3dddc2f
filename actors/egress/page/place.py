"""Where the processes of a page keep their things for as long as it lasts, and as whom they run.

Not in the state folder: that is closed to everybody else, so also to the user that a page runs as,
and the address of a socket may have no more than 107 bytes. `page` in the folder of the recording
is a link to it, for people. What a killed appliance left is found by its name and removed before
the next page is shown, or a minute after the start.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from supervisor.log import logger
from supervisor.orphans import Registry

PREFIX = "switchboard-page-"
LINK = "page"
USER = "nobody"


@dataclass(frozen=True, slots=True)
class Place:
    """A private folder, and the user that owns it (None: ourselves)."""

    folder: Path
    link: Path
    user: str | None

    @property
    def variable(self) -> tuple[str, str]:
        """In the environment of every process of this page: what is left of it is found by that."""
        return "SWITCHBOARD_PAGE", str(self.folder)

    def remove(self) -> None:
        """All of it. Blocking."""
        _remove(self.folder)
        self.link.unlink(missing_ok=True)

    @property
    def runs_as_root(self) -> bool:
        """There is nobody else to run as."""
        return self.user is None and os.geteuid() == 0

    def path(self, name: str) -> Path:
        """Of something in it."""
        return self.folder / name

    def write(self, name: str, data: bytes) -> Path:
        """A file that only the user of the page can read."""
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        self._give(path)
        return path

    def make(self, name: str) -> Path:
        """A folder below, with all on the way to it."""
        path = self.folder
        for part in Path(name).parts:
            path /= part
            if not path.exists():
                path.mkdir(mode=0o700)
                self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            os.chown(path, owner.pw_uid, owner.pw_gid)


def prepare(folder: Path, registry: Registry) -> Place:
    """Make the private folder of a page of this recording. Blocking. Raises OSError."""
    remove_left(registry)
    folder.mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{registry.instance}-{registry.boot}-"))
    link = folder / LINK
    link.unlink(missing_ok=True)
    link.symlink_to(private)
    return Place(private, link, _give_away(private))


def remove_left(registry: Registry) -> None:
    """Remove what pages of earlier boots left. Blocking."""
    mine = f"{PREFIX}{registry.instance}-"
    for left in Path(tempfile.gettempdir()).glob(f"{mine}*"):
        if not left.name.startswith(f"{mine}{registry.boot}-"):
            _remove(left)


def _give_away(private: Path) -> str | None:
    """To the unprivileged user, if we are root and there is one that we can become."""
    if os.geteuid() != 0:
        return None
    try:
        owner = pwd.getpwnam(USER)
        os.chown(private, owner.pw_uid, owner.pw_gid)
    except (KeyError, OSError) as error:
        # In a namespace in which only root has a number, for example.
        logger.warning("page_runs_as_root", reason=str(error))
        return None
    return USER


def _remove(folder: Path) -> None:
    # Goes through no link: the owner is the user that shows strangers' pages.
    shutil.rmtree(folder, onerror=_not_removed)


def _not_removed(_what: object, path: str, info: tuple[object, BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        logger.warning("page_leftover", path=path, reason=str(info[1]))
