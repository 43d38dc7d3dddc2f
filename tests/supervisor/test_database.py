"""The database file: never starts empty over something, and a copy put back is noticed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils
import trio
from sqlite_utils import Migrations

import supervisor.database
from supervisor.database import INSTANCE, NAME, Database, restore
from supervisor.errors import Fatal, StateLocked, StoreCorrupt, StoreMissing
from supervisor.transaction import Reading, Transaction
from tests.supervisor.kit import Bench, put, word_migrations, words

SETS = [word_migrations]


def fill(database: Database, count: int = 200) -> None:
    """Words and events, enough for a few dozen pages."""
    tx = Transaction(database.connection, database.head)
    for n in range(count):
        put(tx, f"{n:04}" + "x" * 200)


def used(folder: Path, count: int = 200) -> Path:
    """A state folder that has been in use; its database."""
    database = Database(folder, SETS)
    fill(database, count)
    database.close()
    return folder / NAME


# -- first and later starts -------------------------------------------------------


def test_an_empty_folder_gets_a_new_database_readable_by_its_owner_only(tmp_path: Path) -> None:
    database = Database(tmp_path / "var", SETS)
    assert (database.boot, database.head, database.first) == (1, 0, 1)
    assert database.fresh
    assert (tmp_path / "var" / NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    database.close()


def test_it_is_kept_in_wal_mode_and_synced_at_each_commit(tmp_path: Path) -> None:
    database = Database(tmp_path)
    execute = database.connection.execute
    assert execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert execute("PRAGMA synchronous").fetchone() == (2,)
    assert execute("PRAGMA foreign_keys").fetchone() == (1,)
    database.close()


def test_a_restart_keeps_the_epoch_and_the_identity_and_counts_the_boot(tmp_path: Path) -> None:
    first = Database(tmp_path, SETS)
    fill(first)
    first.close()
    second = Database(tmp_path, SETS)
    second.close()
    third = Database(tmp_path, SETS)
    third.close()
    assert [d.boot for d in (first, second, third)] == [1, 2, 3]
    assert len({d.epoch for d in (first, second, third)}) == 1
    assert len({d.instance for d in (first, second, third)}) == 1
    assert (second.head, second.first, second.fresh) == (200, 1, False)


def test_after_a_kill_the_epoch_is_the_same(tmp_path: Path) -> None:
    first = Database(tmp_path, SETS)
    fill(first)
    # What a kill leaves: the files as they are, with the log not yet in the database.
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path, killed)
    second = Database(killed, SETS)
    assert (second.epoch, second.boot, second.head) == (first.epoch, 2, 200)
    first.close()
    second.close()


def test_after_retention_the_first_event_is_the_oldest_kept(tmp_path: Path) -> None:
    path = used(tmp_path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM events WHERE seq <= 150")
    database = Database(tmp_path, SETS)
    assert (database.first, database.head) == (151, 200)
    database.close()


# -- migrations -------------------------------------------------------------------


def two_steps(log: list[str]) -> Migrations:
    steps = Migrations("words")

    @steps(name="0001_words")
    def _words(db: sqlite_utils.Database) -> None:
        log.append("0001")
        db.execute("CREATE TABLE words (word TEXT PRIMARY KEY)")

    @steps(name="0002_length")
    def _length(db: sqlite_utils.Database) -> None:
        log.append("0002")
        db.execute("ALTER TABLE words ADD COLUMN length INTEGER")
        db.execute("UPDATE words SET length = length(word)")

    return steps


def test_from_empty_all_migrations_are_applied_in_order_once(tmp_path: Path) -> None:
    log: list[str] = []
    for _ in range(2):
        Database(tmp_path, [two_steps(log)]).close()
    assert log == ["0001", "0002"]


def test_a_filled_older_database_is_brought_up_to_date_and_keeps_its_rows(tmp_path: Path) -> None:
    used(tmp_path)
    log: list[str] = []
    database = Database(tmp_path, [two_steps(log)])
    rows = Reading(database.connection).one("SELECT count(*), min(length) FROM words")
    assert (log, rows, database.head) == (["0002"], (200, 204), 200)
    database.close()


def test_a_migration_that_fails_changes_nothing_and_is_tried_again(tmp_path: Path) -> None:
    used(tmp_path, 3)
    fails = Migrations("words")
    fails(name="0001_words")(lambda _db: None)

    @fails(name="0002_length")
    def _half(db: sqlite_utils.Database) -> None:
        db.execute("DELETE FROM words")
        db.execute("ALTER TABLE words ADD COLUMN length INTEGER")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        Database(tmp_path, [fails])
    log: list[str] = []
    database = Database(tmp_path, [two_steps(log)])
    assert log == ["0002"]
    assert len(words(Reading(database.connection))) == 3
    database.close()


def test_a_database_of_a_newer_version_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    Database(tmp_path, [two_steps([])]).close()
    with pytest.raises(StoreCorrupt, match=r"newer version.*0002_length.*restore a backup"):
        Database(tmp_path, SETS)
    # The newer version still works with it.
    Database(tmp_path, [two_steps([])]).close()


# -- what is refused ----------------------------------------------------------------


def garbage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"This is no database, whatever its name says.\n" * 4)


def garbage_page_in_the_middle(path: Path) -> None:
    middle = path.stat().st_size // 4096 // 2 * 4096
    with path.open("r+b") as file:
        file.seek(middle)
        file.write(bytes(range(256)) * 16)


def cut_in_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // 4096 * 4096)


def text(path: Path) -> None:
    path.write_text("hello\n")


def zero_length(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [garbage_header, garbage_page_in_the_middle, cut_in_half, text, zero_length]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_left_as_it_is_and_the_way_out_named(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = used(tmp_path)
    damage(path)
    before = path.read_bytes(), (tmp_path / INSTANCE).read_bytes()
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match="switchboard restore BACKUP"):
            Database(tmp_path, SETS)
        assert (path.read_bytes(), (tmp_path / INSTANCE).read_bytes()) == before


def test_a_damaged_file_with_a_log_left_by_a_kill_is_not_written_to_either(
    tmp_path: Path,
) -> None:
    used(tmp_path)
    database = Database(tmp_path, SETS)
    database.connection.execute("DELETE FROM words WHERE word > '0150'")
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path, killed)
    database.close()
    garbage_page_in_the_middle(killed / NAME)
    before = [(killed / (NAME + suffix)).read_bytes() for suffix in ("", "-wal")]
    with pytest.raises(StoreCorrupt):
        Database(killed, SETS)
    assert [(killed / (NAME + suffix)).read_bytes() for suffix in ("", "-wal")] == before


def test_a_large_file_is_not_read_whole_at_the_start_but_can_be_checked_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage_page_in_the_middle(used(tmp_path, 1000))
    monkeypatch.setattr(supervisor.database, "CHECK_AT_START", 4096)
    database = Database(tmp_path, SETS)
    assert database.quick_check() != "ok"
    database.close()


def test_a_sound_file_passes_the_check(tmp_path: Path) -> None:
    used(tmp_path)
    database = Database(tmp_path, SETS)
    assert database.quick_check() == "ok"
    database.close()


def test_a_used_folder_without_its_database_is_refused_until_somebody_says_so(
    tmp_path: Path,
) -> None:
    used(tmp_path).unlink()
    with pytest.raises(StoreMissing, match=r"delete .*instance to start"):
        Database(tmp_path, SETS)
    assert not (tmp_path / NAME).exists()
    (tmp_path / INSTANCE).unlink()
    database = Database(tmp_path, SETS)
    assert database.fresh
    database.close()


def test_a_second_opener_is_refused_while_the_first_runs_and_not_after(tmp_path: Path) -> None:
    first = Database(tmp_path, SETS)
    with pytest.raises(StateLocked, match="another appliance"):
        Database(tmp_path, SETS)
    first.close()
    Database(tmp_path, SETS).close()


def test_a_refused_start_gives_the_folder_free(tmp_path: Path) -> None:
    path = used(tmp_path)
    whole = path.read_bytes()
    garbage_header(path)
    with pytest.raises(StoreCorrupt):
        Database(tmp_path, SETS)
    path.write_bytes(whole)
    Database(tmp_path, SETS).close()


def test_a_state_folder_that_cannot_be_one_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(Fatal, match=r"the state folder .* cannot be used"):
        Database(tmp_path / "var", SETS)


# -- backup, restore, copies ----------------------------------------------------------


async def test_a_backup_taken_while_writes_go_on_is_whole_and_one_file(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    bench = await Bench(tmp_path / "var", SETS).start(nursery)
    target = tmp_path / "backups" / "one.db"
    target.parent.mkdir()

    async def keep_writing() -> None:
        n = 0
        while True:
            n += 1
            await bench.store.write(put, f"{n}" + "x" * 500)

    with trio.fail_after(30):
        async with trio.open_nursery() as writers:
            # Enough for the copy to take a while, with commits in the middle of it.
            for n in range(1500):
                bench.store.submit(put, f"before {n}" + "x" * 5000)
            await bench.store.write(put, "before")
            writers.start_soon(keep_writing)
            await trio.to_thread.run_sync(bench.database.backup, target)
            writers.cancel_scope.cancel()
        await bench.close()
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = copy.execute("SELECT count(*) FROM words").fetchone()[0]
        assert kept >= 1501
        # State and log agree, at whatever instant it was.
        assert copy.execute("SELECT count(*), max(seq) FROM events").fetchone() == (kept, kept)
    assert [f.name for f in target.parent.iterdir()] == ["one.db"]
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_restored_backup_continues_under_another_epoch_and_keeps_what_it_replaced(
    tmp_path: Path,
) -> None:
    folder, backup = tmp_path / "var", tmp_path / "backup.db"
    used(folder)
    database = Database(folder, SETS)
    database.backup(backup)
    tx = Transaction(database.connection, database.head)
    put(tx, "after the backup")
    database.close()
    kept = restore(backup, folder)
    assert kept is not None
    with closing(sqlite3.connect(kept)) as old:
        assert old.execute("SELECT max(seq) FROM events").fetchone() == (201,)
    again = Database(folder, SETS)
    assert again.head == 200
    assert again.epoch != database.epoch
    assert again.boot > database.boot
    # The processes of the folder are still known by the same name.
    assert again.instance == database.instance
    again.close()


def test_a_backup_can_be_restored_twice_and_leaves_no_trace_beside_it(tmp_path: Path) -> None:
    folder, backup = tmp_path / "var", tmp_path / "backups" / "backup.db"
    backup.parent.mkdir()
    used(folder)
    database = Database(folder, SETS)
    database.backup(backup)
    database.close()
    epochs = {database.epoch}
    for _ in range(2):
        restore(backup, folder)
        again = Database(folder, SETS)
        epochs.add(again.epoch)
        again.close()
    assert len(epochs) == 3
    assert [f.name for f in backup.parent.iterdir()] == ["backup.db"]


def test_restore_refuses_a_damaged_backup_and_a_running_appliance(tmp_path: Path) -> None:
    folder, backup = tmp_path / "var", tmp_path / "backup.db"
    used(folder)
    database = Database(folder, SETS)
    database.backup(backup)
    with pytest.raises(StateLocked):
        restore(backup, folder)
    database.close()
    garbage_page_in_the_middle(backup)
    before = (folder / NAME).read_bytes()
    with pytest.raises(StoreCorrupt, match="not a usable backup"):
        restore(backup, folder)
    backup.write_text("hello")
    with pytest.raises(StoreCorrupt, match="not a usable backup"):
        restore(backup, folder)
    assert (folder / NAME).read_bytes() == before


def test_restore_brings_back_a_missing_database(tmp_path: Path) -> None:
    folder, backup = tmp_path / "var", tmp_path / "backup.db"
    used(folder)
    database = Database(folder, SETS)
    database.backup(backup)
    database.close()
    (folder / NAME).unlink()
    assert restore(backup, folder) is None
    again = Database(folder, SETS)
    assert again.head == 200
    again.close()


@pytest.mark.parametrize("boots_between", [0, 1, 3])
def test_a_plain_old_copy_put_back_is_noticed(tmp_path: Path, boots_between: int) -> None:
    """Also one made and put back within one and the same boot."""
    folder = tmp_path / "var"
    path = used(folder)
    copy = tmp_path / "copy.db"
    database = Database(folder, SETS)
    with closing(sqlite3.connect(copy)) as target, closing(sqlite3.connect(path)) as source:
        source.backup(target)
    put(Transaction(database.connection, database.head), "after the copy")
    database.close()
    for _ in range(boots_between):
        Database(folder, SETS).close()
    shutil.copyfile(copy, path)
    again = Database(folder, SETS)
    assert again.epoch != database.epoch
    assert again.head == 200
    assert again.boot > database.boot + boots_between
    again.close()


def test_a_database_brought_into_another_folder_is_another_appliance(tmp_path: Path) -> None:
    """Its processes are its own: those of the folder it came from are not touched."""
    path = used(tmp_path / "var")
    (tmp_path / "other").mkdir()
    shutil.copyfile(path, tmp_path / "other" / NAME)
    here, there = Database(tmp_path / "var", SETS), Database(tmp_path / "other", SETS)
    assert here.instance != there.instance
    here.close()
    there.close()
