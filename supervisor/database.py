"""The database file: opened, checked, migrated, locked, backed up.

Never starts empty over something: a damaged file, a missing file in a used state folder, and
one written by a newer version are each refused with what to do about it.
"""

from __future__ import annotations

import fcntl
import os
import queue
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import sqlite_utils
from sqlite_utils import Migrations

from supervisor.errors import Fatal, StateLocked, StoreCorrupt, StoreMissing
from supervisor.event import timestamp
from supervisor.log import logger

NAME = "switchboard.db"
# Beside the database: which log it is, how often it was started and how far it went. A database
# that is older than this file says was restored from a copy: its log gets a new epoch.
INSTANCE = "instance"
# A full check of a larger file takes longer than a start may; it is done in the background.
CHECK_AT_START = 48 * 1024 * 1024

log_migrations = Migrations("log")


@log_migrations(name="0001_log")
def _log(db: sqlite_utils.Database) -> None:
    db["meta"].create({"name": str, "value": str}, pk="name", strict=True)  # type: ignore[union-attr]
    db["events"].create(  # type: ignore[union-attr]
        {"seq": int, "ts": str, "type": str, "subject": str, "data": str},
        pk="seq",
        not_null={"ts", "type", "subject", "data"},
        strict=True,
    )
    db["events"].create_index(["subject", "seq"])  # type: ignore[union-attr]
    db["processes"].create(  # type: ignore[union-attr]
        {"pid": int, "started": int, "boot": int, "owner": str, "command": str, "ts": str},
        pk=("pid", "started"),
        strict=True,
    )


class Database:
    """An open, migrated database and the lock on its folder."""

    def __init__(self, folder: Path, migrations: Sequence[Migrations] = ()) -> None:
        self.folder = folder
        self.path = folder / NAME
        self._lock = _lock(folder)
        try:
            self.fresh = self._refuse_to_start_empty()
            self.connection = self._open(migrations)
            self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
            self.boot, self.epoch = self._begin_boot()
            self.head: int = self._value("SELECT coalesce(max(seq), 0) FROM events")
            first = self._value("SELECT min(seq) FROM events")
            self.first: int = self.head + 1 if first is None else first
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            raise Fatal(f"{self.path} cannot be opened for writing: {error}") from error
        except BaseException:
            os.close(self._lock)
            raise

    # -- opening --------------------------------------------------------------

    def _refuse_to_start_empty(self) -> bool:
        if self.path.exists():
            if self.path.stat().st_size == 0:
                if not (self.folder / INSTANCE).exists():
                    return True  # killed during its very first start: nothing was ever in it
                raise StoreCorrupt(_advice(self.path, "it is empty"))
            return False
        if (self.folder / INSTANCE).exists():
            raise StoreMissing(
                f"{self.path} is missing, but this state folder has been in use. Bring it back "
                f"with `switchboard restore BACKUP`, or delete {self.folder / INSTANCE} to start "
                "with an empty one."
            )
        return True

    def _open(self, migrations: Sequence[Migrations]) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            self._check()
            connection.execute("PRAGMA busy_timeout = 10000")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            # What is deleted is overwritten, and not only marked as free.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            self._migrate(connection, [log_migrations, *migrations])
        except sqlite3.DatabaseError as error:
            connection.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreCorrupt(_advice(self.path, str(error))) from error
            raise Fatal(f"{self.path} cannot be opened for writing: {error}") from error
        except BaseException:
            connection.close()
            raise
        self.path.chmod(0o600)
        return connection

    def _check(self) -> None:
        if self.fresh:
            return
        # Read-only: a connection that may write would write the log of a killed process into
        # the damaged file when it is closed.
        with closing(sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)) as check:
            check.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if self.path.stat().st_size <= CHECK_AT_START:
                found = check.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise StoreCorrupt(_advice(self.path, found))

    def _migrate(self, connection: sqlite3.Connection, sets: Sequence[Migrations]) -> None:
        db = sqlite_utils.Database(connection)
        for migrations in sets:
            known = {m.name for m in migrations.applied(db)} | {
                m.name for m in migrations.pending(db)
            }
            ours = {m.name for m in migrations._migrations}
            if known - ours:
                raise StoreCorrupt(
                    f"{self.path} was written by a newer version (it has {sorted(known - ours)}). "
                    "Install that version, or restore a backup from before the upgrade."
                )
            migrations.apply(db)

    def _value(self, sql: str) -> int:
        row = self.connection.execute(sql).fetchone()
        return row[0] if row else None  # type: ignore[return-value]

    def _begin_boot(self) -> tuple[int, str]:
        """Count this start, and give the log a new epoch if it is not the one we left."""
        meta = dict(self.connection.execute("SELECT name, value FROM meta").fetchall())
        boot = int(meta.get("boot", "0")) + 1
        epoch = meta.get("epoch", "")
        file = self.folder / INSTANCE
        head = self._value("SELECT coalesce(max(seq), 0) FROM events")
        words = file.read_text().split() if file.exists() else []
        seen_epoch, seen_boot, seen_head = [*words, "", "", ""][:3]
        rolled_back = seen_epoch == epoch and (
            (seen_boot.isdigit() and int(seen_boot) >= boot)
            or (seen_head.isdigit() and int(seen_head) > head)
        )
        if not epoch or rolled_back or (seen_epoch and seen_epoch != epoch):
            epoch = secrets.token_hex(4)
            boot = max(boot, int(seen_boot) + 1 if seen_boot.isdigit() else 0)
        rows = {"boot": str(boot), "epoch": epoch, "started": timestamp()}
        # A database brought into another folder is another appliance: processes are known by it,
        # and those of the folder that it came from are not ours to end.
        # The folder itself is known by its inode: a copy of all of it is another appliance, too.
        place = rows["place"] = str(self.folder.stat().st_ino)
        same = file.exists() and meta.get("place", place) == place
        known = meta.get("instance") if same else None
        self.instance = rows["instance"] = known or secrets.token_hex(8)
        if known is None:
            self.connection.execute("DELETE FROM processes")
        self.connection.executemany(
            "INSERT INTO meta (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            list(rows.items()),
        )
        self._leave_word(epoch, boot, head)
        return boot, epoch

    def _leave_word(self, epoch: str, boot: int, head: int) -> None:
        file = self.folder / INSTANCE
        temporary = file.with_suffix(".new")
        temporary.write_text(f"{epoch} {boot} {head}\n")
        temporary.replace(file)

    # -- use ------------------------------------------------------------------

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection for the time of the block; any thread."""
        try:
            connection = self._readers.get_nowait()
        except queue.Empty:
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode=ro",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute("PRAGMA busy_timeout = 10000")
        try:
            yield connection
        finally:
            self._readers.put(connection)

    def quick_check(self) -> str:
        """`ok`, or what is wrong with the file. Reads all of it."""
        with self.reader() as connection:
            return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])

    def backup(self, target: Path) -> None:
        """Copy the database, while it is in use, to a new file.

        In one step: a copy in several would begin anew with every write in between.
        The copy is marked, so that a log continued from it gets another epoch.
        """
        partial = target.with_name(target.name + ".part")
        with suppress(FileNotFoundError):
            partial.unlink()
        copy = sqlite3.connect(partial)
        try:
            with self.reader() as connection:
                connection.backup(copy)
            with copy:
                copy.execute("DELETE FROM meta WHERE name = 'epoch'")
            # One file and no more, readable also where nothing may be written.
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
        partial.chmod(0o600)
        partial.replace(target)

    def begin_journal_anew(self) -> None:
        """Bring all that is in the write-ahead log into the file, and empty the log. Blocking.

        Readers that are under way may put it off: it is then done with a later checkpoint.
        """
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            logger.warning("journal_not_emptied")

    def leave_word(self) -> None:
        """Note beside the database how far the log went.

        A copy of it from before that is then noticed, and gets another epoch.
        """
        with self.reader() as connection:
            head = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        self._leave_word(self.epoch, self.boot, head)

    def close(self) -> None:
        """Close all connections and give the folder free."""
        with suppress(OSError, sqlite3.Error):
            self.leave_word()
        while True:
            try:
                self._readers.get_nowait().close()
            except queue.Empty:
                break
        self.connection.close()
        os.close(self._lock)


def restore(backup: Path, folder: Path) -> Path | None:
    """Put a backup in the place of the database; where the old one was moved to, if there was one.

    Raises StoreCorrupt when the backup is damaged, StateLocked while the appliance runs.
    """
    lock = _lock(folder)
    try:
        check = sqlite3.connect(f"{backup.resolve().as_uri()}?mode=ro", uri=True)
        try:
            found = check.execute("PRAGMA quick_check(1)").fetchone()[0]
            check.execute("SELECT count(*) FROM events")
        except sqlite3.DatabaseError as error:
            raise StoreCorrupt(f"{backup} is not a usable backup: {error}") from error
        finally:
            check.close()
        if found != "ok":
            raise StoreCorrupt(f"{backup} is not a usable backup: {found}")
        path = folder / NAME
        kept: Path | None = None
        if path.exists():
            kept = folder / f"{NAME}.{timestamp().replace(':', '')}.replaced"
            path.rename(kept)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                (folder / (NAME + suffix)).rename(
                    folder / ((kept.name if kept else NAME + ".lost") + suffix)
                )
        partial = folder / (NAME + ".part")
        shutil.copyfile(backup, partial)
        partial.chmod(0o600)
        partial.replace(path)
        return kept
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Fatal(f"the state folder {folder} cannot be used: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateLocked(f"another appliance runs on the state folder {folder}") from error
    return descriptor


def _advice(path: Path, what: str) -> str:
    return (
        f"{path} cannot be used: {what}. Nothing was changed. Stop here and bring back the last "
        f"backup with `switchboard restore BACKUP` (it keeps the damaged file beside it); to save "
        f"what is readable first: `sqlite3 {path.name} .recover`."
    )
