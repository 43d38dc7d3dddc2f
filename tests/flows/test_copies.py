"""A copy of a state folder is another appliance: it leaves the first one's processes alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import trio

from tests.api.kit import CONFIG
from tests.appliance import running
from tests.flows.kit import Fleet


def running_still(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_copy_does_not_end_the_processes_of_the_first(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with running(tmp_path, CONFIG) as first, Fleet(first) as it:
            pids = [(await it.up(f"gw{number}", "plain"))["pid"] for number in range(3)]
            folder = tmp_path / "copied"
            shutil.copytree(first.folder, folder, symlinks=True)
            config = {**CONFIG, "state": str(folder)}
            async with running(tmp_path, config, name="second") as second, Fleet(second) as copy:
                # It takes up what the copy says is up, as processes of its own.
                for number, pid in enumerate(pids):
                    status = await copy.is_(f"gw{number}", gw_state="up")
                    assert status["pid"] not in pids
                    assert running_still(pid)
                assert [e for e in copy.events if e["type"] == "process.orphan_ended"] == []
                # And again, now that it is itself.
                await second.restart()
            for number, pid in enumerate(pids):
                status = await it.status(f"gw{number}")
                assert (status["gw_state"], status["pid"]) == ("up", pid)
                assert running_still(pid)
                assert "died" not in it.types(f"gw{number}")


async def test_one_that_was_killed_is_still_known_as_itself(tmp_path: Path) -> None:
    """Its own processes it ends, as before."""
    with trio.fail_after(60):
        async with running(tmp_path, CONFIG) as appliance:
            async with Fleet(appliance) as it:
                pid = (await it.up("gw", "plain"))["pid"]
            await appliance.kill9()
            await appliance.start()
            async with Fleet(appliance) as it:
                status = await it.is_("gw", gw_state="up")
                assert status["pid"] != pid
                assert not running_still(pid)
