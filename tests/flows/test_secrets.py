"""What must not be told on is not, neither in events nor in a detail, a log or an answer."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import psutil

from supervisor.database import NAME
from tests.api.kit import PROFILES
from tests.appliance import ports, running
from tests.flows.kit import Fleet, Json, fleet

KEY = "st-4f9c27aa81"
BLABS = {
    "command": [
        "sh",
        "-c",
        'echo "cannot log in with $GATEWAY_API_KEY at $GATEWAY_RTMP_DST"; exit 3',
    ],
    "ready": {"when": "running", "seconds": 5},
}
# Up for as long as its standard input is quiet, then it says what it must not.
BLABS_LATER = {
    "command": ["sh", "-c", 'echo ready; sleep 0.3; echo "lost: $GATEWAY_API_KEY"; exit 3'],
    "ready": {"when": "line", "pattern": "^ready"},
    "restart": {"policy": "temporary"},
}
# It reports the error itself.
BLABS_JSON = {
    "command": [
        "sh",
        "-c",
        'printf \'{"status":"error","error":"no such key: %s"}\\n\' "$GATEWAY_API_KEY"; sleep 1000',
    ],
    "ready": {"when": "result", "timeout": 10},
}
# It is ready, and tells with what.
GREETS = {
    **BLABS_JSON,
    "command": ["sh", "-c", 'echo "{\\"message\\":\\"hello $GATEWAY_API_KEY\\"}"; sleep 1000'],
}
CONFIG: Json = {
    "gateways": {
        "profiles": {
            **PROFILES,
            "blabs": BLABS,
            "later": BLABS_LATER,
            "reports": BLABS_JSON,
            "greets": GREETS,
        }
    }
}


def everything(it: Fleet) -> str:
    """All that was told: events, and the log."""
    return json.dumps(it.events) + it.appliance.log.read_text()


async def test_what_a_gateway_prints_of_its_request_is_not_told_on(tmp_path: Path) -> None:
    async with fleet(tmp_path, CONFIG) as it:
        url = f"rtmp://127.0.0.1/live/{KEY}"
        for main_app, words in (("blabs", "cannot log in"), ("reports", "no such key")):
            answer = await it.start(main_app, main_app, api_key=KEY, rtmp_dst=url)
            assert answer.status_code == 500
            assert words in answer.json()["error"]["message"]
            assert KEY not in answer.text
            failed = await it.event(main_app, "failed")
            assert words in failed["data"]["reason"]
            status = await it.status(main_app)
            assert words in status["detail"]
            assert KEY not in json.dumps(status)
        greeted = await it.up("greets", "greets", api_key=KEY)
        assert "***" in greeted["detail"]
        await it.up("later", "later", api_key=KEY)
        lost = await it.event("later", "failed")
        assert "lost: ***" in lost["data"]["reason"]
        assert "lost: ***" in (await it.status("later"))["detail"]
        listed = await it.client.get("/gateway/list")
        assert KEY not in listed.text
        assert KEY not in everything(it)


async def test_the_key_of_a_stream_is_not_told_when_it_fails(tmp_path: Path) -> None:
    """ffmpeg itself names the address that it cannot reach."""
    async with fleet(tmp_path) as it:
        await it.up("gw01", "streaming", rtmp_dst=f"rtmp://127.0.0.1:{ports()}/live/{KEY}")
        await it.up("caller", "baresip", dial=(await it.status("gw01"))["sip"])
        failed = await it.event("gw01", "stream_failed")
        assert "ffmpeg" in failed["data"]["detail"]
        assert KEY not in everything(it)
        assert KEY not in json.dumps(await it.status("gw01"))


async def test_a_dry_reload_masks_the_environment_of_profiles(tmp_path: Path) -> None:
    async with fleet(tmp_path, CONFIG) as it:
        # One that changes, one that comes new, and one that goes; none is named as a secret.
        new = {**PROFILES["plain"], "env": {"ACCOUNT": f"{KEY}-new"}}
        it.appliance.write_config(
            {"gateways": {"profiles": {"plain": {"env": {"ACCOUNT": KEY}}, "new": new}}}
        )
        for dry in (True, False):
            answer = await it.client.post("/system/reload", json={"dry": dry})
            assert answer.status_code == 200
            paths = {change["path"] for change in answer.json()["changes"]}
            assert "gateways.profiles.new" in paths
            assert any(path.startswith("gateways.profiles.plain.env") for path in paths)
            assert KEY not in answer.text
        it.appliance.write_config(
            {"gateways": {"profiles": {"new": {"env": {"ACCOUNT": "x" + KEY}}}}}
        )
        it.appliance.config["gateways"]["profiles"]["plain"].pop("env")
        it.appliance.write_config()
        answer = await it.client.post("/system/reload", json={"dry": True})
        paths = {change["path"] for change in answer.json()["changes"]}
        assert any(path.startswith("gateways.profiles.plain.env") for path in paths)
        assert KEY not in answer.text
        assert KEY not in everything(it)


async def test_a_stored_token_is_in_nobodys_argument_list(tmp_path: Path) -> None:
    async with fleet(tmp_path, CONFIG) as it:
        pid = (await it.up("gw01", "plain", api_key=KEY))["pid"]
        assert psutil.Process(pid).environ()["GATEWAY_API_KEY"] == KEY
        for process in [psutil.Process(it.appliance.pid), psutil.Process(pid)]:
            assert KEY not in " ".join(process.cmdline())
        kept = it.appliance.folder / "gateways" / "gw01" / "request.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_the_database_is_its_owners_alone_also_in_a_folder_that_was_open(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with closing(sqlite3.connect(tmp_path / "elsewhere.db")):
        pass
    async with running(tmp_path, {"state": str(folder)}) as appliance:
        async with appliance.client() as client:
            assert (await client.post("/system/backup", json={"name": "b.db"})).status_code == 200
        files = [*folder.glob(f"{NAME}*"), *folder.glob("backups/*")]
        assert {file.name for file in files} >= {NAME, f"{NAME}-wal", "b.db"}
        modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in files}
        assert set(modes.values()) == {"0o600"}, modes
