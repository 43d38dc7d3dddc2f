"""The disk is full while a recording is made: a small one, of the recordings' own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import trio

from tests.appliance import ROOT, Appliance, laid_over
from tests.disk import UNSHARE
from tests.flows.egress.kit import APP, QUICK, Studio, channel
from tests.flows.egress.media import ffmpeg, plays, seconds
from tests.flows.kit import Json


class RecordingsOnSmallDisk(Appliance):
    """A tmpfs of its own for recordings; the database is elsewhere."""

    @property
    def recordings(self) -> Path:
        """Their folder, as its process alone sees it."""
        return Path(f"/proc/{self.pid}/root{self.folder}/egress")

    def launch(self, **environment: str) -> subprocess.Popen[bytes]:
        """See Appliance: each step replaces itself by the next, so the pid is the appliance's."""
        (self.folder / "egress").mkdir(parents=True, exist_ok=True)
        mount = f'mount -t tmpfs -o size=8m tmpfs "{self.folder}/egress" && exec "$@"'
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

    def fill(self) -> None:
        """Use up the disk."""
        with suppress(OSError), (self.recordings / "filler").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    def clear(self) -> None:
        """And give it back."""
        (self.recordings / "filler").unlink()


async def capacity(it: Studio) -> Json:
    """What there is for tasks."""
    found: Json = (await it.client.get("/egress/v1/capacity")).json()
    return found


async def test_the_disk_fills_up_while_recording(tmp_path: Path, colours: dict[str, Path]) -> None:
    """The task fails with the reason, what was recorded plays, and all else goes on."""
    config = laid_over(QUICK, channel(red=colours["red"]))
    appliance = RecordingsOnSmallDisk(tmp_path / "appliance", config)
    appliance.folder.mkdir(parents=True, exist_ok=True)
    with trio.fail_after(90):
        try:
            await appliance.start()
            async with Studio(appliance) as it:
                task = await it.record("room", format=["hls", "mp4"], filename_pattern="r")
                await it.everybody(task, 5)
                appliance.fill()
                view = await it.over(task)
                assert view["state"] == "FAILED"
                assert view["reason"] == "disk_full"
                assert "disk" in view["error"]
                names = [f["name"] for f in view["files"]]
                assert "r.m3u8" in names
                seen = tmp_path / "seen.mkv"
                header = f"Authorization: Bearer {appliance.token}\r\n"
                url = f"{appliance.url}{APP}/{task}/files/r.m3u8"
                await trio.to_thread.run_sync(
                    lambda: ffmpeg("-headers", header, "-i", url, "-c", "copy", seen)
                )
                assert seconds(seen) >= 4
                # All else: a gateway starts and answers.
                await it.up("gw01", "baresip")
                assert (await it.send("gw01", {"action": "ping"})).status_code == 200

                # Nothing begins before there is room again.
                while "disk" not in (await capacity(it))["claims_stopped"]:
                    await trio.sleep(0.1)
                waiting = await it.record("room", format="mp4", filename_pattern="r")
                view = await it.view(waiting)
                assert (view["state"], "disk" in view["waiting_for"]) == ("ENQUEUED", True)
                assert "disk" in (await it.client.get("/healthz")).text
                appliance.clear()
                await it.everybody(waiting, 2)
                view = await it.ended(waiting)
                copy = tmp_path / "copy.mp4"
                answer = await it.client.get(f"{APP}/{waiting}/files/r.mp4")
                copy.write_bytes(answer.content)
                plays(copy)
        finally:
            await appliance.end()
