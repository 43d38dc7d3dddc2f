"""Real disks that refuse, and real kills: what was answered is there, what was refused is not.

A child program does it, in a mount namespace of its own: the disk is a tmpfs that nobody else sees
and that goes with it.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from supervisor.database import NAME, Database
from tests.disk import UNSHARE
from tests.supervisor.kit import word_migrations

ROOT = Path(__file__).parents[2]
TMPFS = "mount -t tmpfs -o size=1m tmpfs {0}"


def on_a_disk(mount: str, folder: Path, *program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that sees a small disk at `folder`."""
    folder.mkdir()
    script = f'{mount.format(folder)} && exec "$@"'
    return subprocess.run(
        [*UNSHARE, "sh", "-c", script, "sh", *program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def host(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"tests.supervisor.hosts.{module}", *arguments]


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    saw = seen(on_a_disk(TMPFS, folder, *host("disk", str(folder))))
    answered = saw["answered"]
    assert len(answered) > 3
    assert saw["refused"] == saw["failing"] == saw["reason"] == "the disk is full"
    # Twenty at once, in one transaction: all refused, and nothing of it kept.
    assert saw["batch"] == ["insufficient_storage: the disk is full"]
    assert saw["kept_full"] == answered
    assert saw["told"] == ["store.failed", "store.recovered"]
    assert saw["recovered"] is True
    assert saw["seqs"] == list(range(1, saw["seq"] + 1))
    assert saw["seq"] == len(answered) + 3


def test_a_start_on_a_full_disk_is_refused_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    done = on_a_disk(
        f"{TMPFS} && head -c 2000000 /dev/zero > {{0}}/filler; true",
        folder,
        *host("disk", str(folder)),
    )
    assert done.returncode != 0
    assert "supervisor.errors.Fatal" in done.stderr
    assert "cannot be" in done.stderr


def test_every_answered_write_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    rng = random.Random(3)
    answered: dict[str, int] = {}
    for _ in range(4):
        with subprocess.Popen(
            host("writer", str(tmp_path)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(rng.randrange(1, 400))]
            child.send_signal(signal.SIGKILL)
            # What still stood in the pipe was answered as well.
            lines += child.stdout.readlines()
        assert child.returncode == -signal.SIGKILL
        for line in lines:
            word, seq = line.decode().split()
            answered[word] = int(seq)
    assert len(answered) > 4
    with closing(sqlite3.connect(tmp_path / NAME)) as db:
        kept = dict(
            db.execute("SELECT word, e.seq FROM words JOIN events e ON e.subject = 'word/' || word")
        )
        assert {word: kept.get(word) for word in answered} == answered
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM events ORDER BY seq")]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(kept) == len(seqs)
    database = Database(tmp_path, [word_migrations])
    assert database.quick_check() == "ok"
    assert database.boot == 5
    database.close()
