"""Every command: plain and with --json, and the exit status it is known by."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import trio

from config import VERSION
from supervisor.database import NAME, Database
from tests.api.kit import CONFIG, make_token, name
from tests.appliance import Appliance, ports, running
from tests.cli.kit import switchboard

CLIENTS = [
    ["tree"],
    ["reload"],
    ["restart", "retention"],
    ["events", "--count", "1"],
    ["token", "create", "x", "--scope", "*"],
    ["token", "list"],
    ["token", "revoke", "x"],
    ["backup"],
    ["webhooks"],
    ["webhooks", "dead", "x"],
    ["webhooks", "redrive", "x"],
    ["webhooks", "enable", "x"],
    ["webhooks", "test", "x"],
]


# -- the appliance is down ----------------------------------------------------------


@pytest.mark.parametrize("arguments", CLIENTS, ids=lambda a: " ".join(a[:2]))
async def test_when_it_is_down_a_command_says_so_and_what_to_do(
    tmp_path: Path, arguments: list[str]
) -> None:
    url = f"http://127.0.0.1:{ports()}"
    done = await switchboard(*arguments, "--url", url, cwd=tmp_path)
    assert done.status == 4
    assert url in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "switchboard serve" in done.err


# -- with one that runs --------------------------------------------------------------


async def test_check_says_what_a_reload_would_change(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        file = appliance.config_file
        done = await switchboard("check", config=file)
        assert done.status == 0
        assert done.out == f"{file}: good\nA reload would change nothing.\n"
        appliance.write_config({"limits": {"body": 4000}})
        done = await switchboard("check", config=file)
        assert "limits.body: 1048576 -> 4000; at once" in done.out
        done = await switchboard("check", "--json", config=file)
        assert done.json["ok"] is True
        assert done.json["changes"][0]["path"] == "limits.body"
        assert (await switchboard("check", "--json", config=file)).json["changes"] != []
        mine = {"command": ["x"], "ready": {"when": "running"}}
        appliance.write_config({"gateways": {"profiles": {"mine": mine}}})
        done = await switchboard("check", config=file)
        new = "  gateways.profiles.mine: new profile, used from the next start on"
        assert new in done.out.splitlines()
        done = await switchboard("reload", "--json", config=file)
        assert done.json["applied"] is True
        done = await switchboard("reload", config=file)
        assert done.out == "Nothing has changed.\n"
        file.write_text("limits: {bdy: 1}\n")
        done = await switchboard("check", config=file)
        assert (done.status, done.out) == (2, "")
        assert done.err == f"{file}:1: limits.bdy: unknown key; did you mean 'body'?\n"


async def test_check_without_an_appliance_checks_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"server: {{bind: ['127.0.0.1:{ports()}']}}\n")
    done = await switchboard("check", "--json", config=file)
    assert done.status == 0
    assert done.json == {"ok": True, "file": str(file), "changes": None}


async def test_a_reload_that_is_refused_shows_the_problems(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        token = appliance.token
        appliance.config_file.write_text("limits: {bdy: 1}\n")
        done = await switchboard("reload", "--url", appliance.url, "--token", token)
        assert done.status == 5
        assert "refused with 422" in done.err
        assert "limits.bdy: unknown key; did you mean 'body'?" in done.err


async def test_the_tree_shows_what_runs(shared: Appliance) -> None:
    done = await switchboard("tree", config=shared.config_file)
    assert done.status == 0
    for part in ("store", "guardian", "gateways", "router", "config", "api", "running"):
        assert part in done.out
    done = await switchboard("tree", "--json", config=shared.config_file)
    children = [child["path"] for child in done.json["tree"]["children"]]
    parts = [
        "store",
        "guardian",
        "retention",
        "gateways",
        "egress",
        "calls",
        "webhooks",
        "config",
        "api",
    ]
    assert children == [f"/{part}" for part in parts]


async def test_an_actor_is_restarted_by_hand(shared: Appliance) -> None:
    done = await switchboard("restart", "/retention", config=shared.config_file)
    assert (done.status, done.out) == (0, "/retention is running\n")
    done = await switchboard("restart", "gateways/router", "--json", config=shared.config_file)
    assert done.json["state"] == "running"
    done = await switchboard("restart", "nobody", config=shared.config_file)
    assert done.status == 5
    assert "there is no actor /nobody" in done.err
    done = await switchboard("restart", "api", config=shared.config_file)
    assert done.status == 5


async def test_tokens_are_made_listed_and_revoked(shared: Appliance) -> None:
    file, named = shared.config_file, name("cli")
    scopes = ["--scope", "gateway:rw", "--scope", "events:ro"]
    done = await switchboard("token", "create", named, *scopes, config=file)
    assert done.status == 0
    token = done.out.strip()
    done = await switchboard("tree", "--token", token, config=file)
    assert done.status == 5
    assert "403" in done.err
    done = await switchboard("token", "list", config=file)
    assert named in done.out
    assert "gateway:rw" in done.out
    assert token not in done.out
    done = await switchboard("token", "list", "--json", config=file)
    (entry,) = [entry for entry in done.json if entry["name"] == named]
    assert sorted(entry["scopes"]) == ["events:ro", "gateway:rw"]
    done = await switchboard("token", "create", named, "--scope", "*", config=file)
    assert done.status == 5
    assert "409" in done.err
    done = await switchboard("token", "revoke", named, config=file)
    assert (done.status, done.out) == (0, f"{named} is revoked\n")
    done = await switchboard("token", "revoke", named, "--json", config=file)
    assert done.status == 5
    done = await switchboard("token", "create", named, "--scope", "*", "--json", config=file)
    assert set(done.json) == {"name", "scopes", "token"}


async def test_without_a_token_a_command_says_where_to_get_one(shared: Appliance) -> None:
    done = await switchboard("tree", "--url", shared.url, "--token", "nonsense")
    assert done.status == 5
    assert "--token" in done.err
    assert "admin.token" in done.err


async def test_url_and_token_may_come_from_the_environment(
    shared: Appliance, tmp_path: Path
) -> None:
    done = await switchboard(
        "tree",
        "--json",
        cwd=tmp_path,
        SWITCHBOARD_URL=shared.url,
        SWITCHBOARD_TOKEN=shared.token,
    )
    assert done.status == 0


async def test_a_broken_file_keeps_nobody_from_asking(shared: Appliance, tmp_path: Path) -> None:
    (tmp_path / "switchboard.yaml").write_text("nonsense: 1\n")
    done = await switchboard(
        "tree", "--json", "--url", shared.url, "--token", shared.token, cwd=tmp_path
    )
    assert done.status == 0
    assert "nonsense: unknown key" in done.err
    assert done.err.endswith("; going by the packaged defaults\n")


async def test_version_is_told_with_and_without_an_appliance(
    shared: Appliance, tmp_path: Path
) -> None:
    done = await switchboard("version", config=shared.config_file)
    assert done.out == f"switchboard {VERSION}\nappliance at {shared.url}: {VERSION}\n"
    done = await switchboard("version", "--json", config=shared.config_file)
    assert done.json["appliance"]["boot"] == 1
    url = f"http://127.0.0.1:{ports()}"
    done = await switchboard("version", "--url", url, cwd=tmp_path)
    assert (done.status, done.out, done.err) == (0, f"switchboard {VERSION}\n", "")


# -- events -----------------------------------------------------------------------------


async def test_events_are_printed_a_line_each(shared: Appliance) -> None:
    file = shared.config_file
    done = await switchboard("events", "--since", "0", "--count", "2", config=file)
    assert done.status == 0
    first, _second = done.out.splitlines()
    assert "token.created token/admin" in first
    done = await switchboard("events", "--since", "0", "--count", "2", "--json", config=file)
    assert [json.loads(line)["seq"] for line in done.out.splitlines()] == [1, 2]
    done = await switchboard("events", "--since", "nonsense", config=file)
    assert done.status == 5
    assert "resume token" in done.err
    done = await switchboard("events", "--count", "0", config=file)
    assert done.status == 2


async def test_following_goes_on_over_a_restart_without_a_hole(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        found: list[int] = []

        async def follow() -> None:
            done = await switchboard(
                "events", "--since", "0", "--topics", "token", "--count", "6", "--json",
                config=appliance.config_file,
            )  # fmt: skip
            assert done.status == 0
            lines = [json.loads(line) for line in done.out.splitlines()]
            assert [line["subject"] for line in lines] == [
                "token/admin", *(f"token/follow-{number}" for number in range(5))
            ]  # fmt: skip
            found.extend(line["seq"] for line in lines)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for number in range(5):
                async with appliance.client() as client:
                    if number == 2:
                        while not (await client.get("/system/tree")).json()["counts"][
                            "subscribers"
                        ]:
                            await trio.sleep(0.02)
                    await make_token(client, "*", named=f"follow-{number}")
                if number == 2:
                    await appliance.kill9()
                    await appliance.restart()
                if number == 3:
                    await appliance.restart()
        assert found == sorted(found)


# -- backup and restore --------------------------------------------------------------------


async def test_a_backup_is_made_while_it_runs_and_brought_back(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG) as appliance:
        file = appliance.config_file
        async with appliance.client() as client:
            await make_token(client, "*", named="before")
            epoch = (await client.get("/version")).json()["epoch"]
        done = await switchboard("backup", "first.db", config=file)
        assert done.status == 0
        backup = appliance.folder / "backups" / "first.db"
        assert done.out.startswith(f"{backup} (")
        assert backup.stat().st_mode & 0o777 == 0o600
        done = await switchboard("backup", "first.db", config=file)
        assert done.status == 5
        assert "exists already" in done.err
        done = await switchboard("backup", "../outside.db", config=file)
        assert done.status == 5
        done = await switchboard("backup", "--json", config=file)
        assert Path(done.json["file"]).stat().st_size == done.json["size"]

        done = await switchboard("restore", str(backup), config=file)
        assert done.status == 3
        assert "another appliance runs" in done.err

        async with appliance.client() as client:
            await make_token(client, "*", named="after")
        assert await appliance.stop() == 0
        done = await switchboard("restore", str(backup), "--json", config=file)
        assert done.status == 0, done.err
        assert Path(done.json["kept"]).exists()
        await appliance.restart()
        async with appliance.client() as client:
            names = [t["name"] for t in (await client.get("/system/tokens")).json()["tokens"]]
            assert names == ["admin", "before"]
            assert (await client.get("/version")).json()["epoch"] != epoch


async def test_a_missing_secret_is_an_error_of_check_and_none_of_restore(tmp_path: Path) -> None:
    """A backup is brought back where nobody has the appliance's secrets."""
    backup = tmp_path / "backup.db"
    with closing(Database(tmp_path / "other")) as database:
        database.backup(backup)
    file = tmp_path / "own.yaml"
    token = "{name: proxy, token: '${NO_SUCH_SECRET}', scopes: ['*']}"
    file.write_text(f"state: {tmp_path / 'state'}\nauth:\n  tokens:\n    - {token}\n")
    done = await switchboard("check", config=file)
    assert done.status == 2
    missing = "auth.tokens[0].token: the environment variable NO_SUCH_SECRET is not set"
    assert done.err == f"{file}:4: {missing}\n"
    done = await switchboard("restore", str(backup), config=file)
    assert (done.status, done.out) == (0, "restored\n"), done.err
    assert (tmp_path / "state" / NAME).exists()


async def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    bad.write_text("nonsense" * 100)
    file = tmp_path / "own.yaml"
    file.write_text(f"state: {tmp_path / 'state'}\n")
    done = await switchboard("restore", str(bad), config=file)
    assert done.status == 3
    assert "not a usable backup" in done.err
    done = await switchboard("restore", str(tmp_path / "absent"), config=file)
    assert done.status == 2


# -- usage ------------------------------------------------------------------------------


async def test_usage(tmp_path: Path) -> None:
    done = await switchboard("--help", cwd=tmp_path)
    assert done.status == 0
    for command in (
        "serve", "check", "reload", "tree", "restart", "events", "token", "backup", "restore",
        "version", "completion",
    ):  # fmt: skip
        assert command in done.out
    assert "Exit statuses: 0 done" in done.out
    assert (await switchboard("nonsense", cwd=tmp_path)).status == 2
    assert (await switchboard("tree", "--nonsense", cwd=tmp_path)).status == 2
    assert (await switchboard("token", "create", "x", cwd=tmp_path)).status == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    done = await switchboard("completion", shell, cwd=tmp_path)
    assert done.status == 0
    assert "_SWITCHBOARD_COMPLETE" in done.out
    assert (await switchboard("completion", "csh", cwd=tmp_path)).status == 2
