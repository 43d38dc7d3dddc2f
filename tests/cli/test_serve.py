"""`switchboard serve`: how it begins, how it ends, and what it says when it cannot."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from supervisor.database import NAME
from tests.api.kit import CONFIG, make_token, start_request
from tests.appliance import Appliance, ports, running
from tests.cli.kit import switchboard

# -- it begins ------------------------------------------------------------------------


async def test_with_nothing_but_an_address_it_works(tmp_path: Path) -> None:
    """State in ./var, an admin token that its owner alone can read."""
    file = tmp_path / "switchboard.yaml"
    file.write_text(f"server: {{bind: ['127.0.0.1:{ports()}']}}\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(switchboard_serve, tmp_path)
        token = tmp_path / "var" / "admin.token"
        with trio.fail_after(20):
            while (await switchboard("tree", "--json", cwd=tmp_path)).status != 0:
                await trio.sleep(0.05)
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert token.read_text().startswith("sb_")
        nursery.cancel_scope.cancel()


async def switchboard_serve(folder: Path) -> None:
    await switchboard("serve", cwd=folder)


async def test_the_admin_token_is_made_once(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance:
        token = appliance.token
        await appliance.restart()
        assert appliance.token == token
        async with appliance.client() as client:
            assert (await client.get("/system/tree")).status_code == 200
            assert (await client.get("/version")).json()["boot"] == 2


# -- it ends --------------------------------------------------------------------------


async def test_a_term_signal_ends_it_in_order_with_everything_open(tmp_path: Path) -> None:
    """Streams that are read, streams that are not, a request under way, and a gateway."""
    async with running(tmp_path, CONFIG) as appliance, AsyncExitStack() as stack:
        client = await stack.enter_async_context(appliance.client())
        await client.post("/gateway/start", json=start_request("gw01"))
        gateway = (await client.get("/gateway/status?gw_id=gw01")).json()["data"]["pid"]
        for _ in range(5):
            socket = await stack.enter_async_context(appliance.ws())
            await socket.get_message()
        idle = await stack.enter_async_context(
            await trio.open_tcp_stream("127.0.0.1", appliance.port)
        )
        half = await stack.enter_async_context(
            await trio.open_tcp_stream("127.0.0.1", appliance.port)
        )
        await half.send_all(b"POST /system/tokens HTTP/1.1\r\nHost: x\r\nContent-Len")
        begun = trio.current_time()
        assert await appliance.stop() == 0
        assert trio.current_time() - begun < 10
        assert not Path(f"/proc/{gateway}").exists()
        assert idle is not half
    assert "Traceback" not in appliance.log.read_text()


async def test_an_interrupt_ends_it_as_well(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance:
        appliance.signal(signal.SIGINT)
        assert await appliance.exited() == 0


async def test_a_second_signal_ends_it_sooner(tmp_path: Path) -> None:
    stubborn = {
        "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
        "ready": {"when": "running", "seconds": 0.1},
        "stop": {"grace": 15},
    }
    config = {"gateways": {"profiles": {"stubborn": stubborn}}}
    async with running(tmp_path, config) as appliance, appliance.ws() as watcher:
        async with appliance.client() as client:
            answer = await client.post("/gateway/start", json=start_request("gw01", "stubborn"))
            assert answer.status_code == 200
            pid = (await client.get("/gateway/status?gw_id=gw01")).json()["data"]["pid"]
        begun = trio.current_time()
        appliance.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            while True:
                await watcher.get_message()
        appliance.signal(signal.SIGTERM)
        await appliance.exited(8)
        assert trio.current_time() - begun < 8
        with trio.fail_after(5):
            while Path(f"/proc/{pid}").exists():
                await trio.sleep(0.02)
    assert any(line.get("event") == "stop_cut_short" for line in appliance.log_lines())


async def test_the_stop_is_the_last_of_the_log(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance:
        async with appliance.client() as client:
            await make_token(client, "*", named="x")
        await appliance.restart()
        file = appliance.config_file
        done = await switchboard(
            "events", "--since", "0", "--topics", "system", "--count", "3", config=file
        )
    types = [line.split()[1] for line in done.out.splitlines()]
    assert types == ["system.started", "system.stopping", "system.started"]


# -- systemd ----------------------------------------------------------------------------


async def test_systemd_is_told_what_it_wants_to_know(tmp_path: Path) -> None:
    """Ready once it answers, alive twice in each period, and that it stops."""
    appliance = Appliance(tmp_path / "appliance", None)
    name = f"switchboard-test-{secrets.token_hex(8)}"
    try:
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            await notified.bind(f"\0{name}")
            appliance.launch(NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="400000")
            with trio.fail_after(20):
                told = []
                while "READY=1" not in told:
                    told.append((await notified.recv(100)).decode())
                async with appliance.client() as client:
                    assert (await client.get("/readyz")).status_code == 200
                begun = trio.current_time()
                for _ in range(5):
                    assert await notified.recv(100) == b"WATCHDOG=1"
                assert 0.5 < trio.current_time() - begun < 2.5
                appliance.signal(signal.SIGTERM)
                while (last := (await notified.recv(100)).decode()) == "WATCHDOG=1":
                    continue
                assert last == "STOPPING=1"
            assert await appliance.exited() == 0
    finally:
        await appliance.end()


async def test_a_socket_that_is_not_there_does_no_harm(tmp_path: Path) -> None:
    appliance = Appliance(tmp_path / "appliance", None)
    appliance.launch(NOTIFY_SOCKET=str(tmp_path / "nobody"), WATCHDOG_USEC="nonsense")
    try:
        with trio.fail_after(20):
            while not any(line.get("event") == "ready" for line in appliance.log_lines()):
                assert appliance.running
                await trio.sleep(0.02)
        assert await appliance.stop() == 0
        assert any(line.get("event") == "systemd_not_told" for line in appliance.log_lines())
    finally:
        await appliance.end()


# -- it cannot begin ----------------------------------------------------------------------


async def test_a_state_folder_in_use_is_not_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as appliance:
        file = tmp_path / "other.yaml"
        file.write_text(f"state: {appliance.folder}\nserver: {{bind: ['127.0.0.1:{ports()}']}}\n")
        done = await switchboard("serve", config=file)
        assert done.status == 3
        assert "another appliance runs on the state folder" in done.err
        assert "Traceback" not in done.err
        async with appliance.client() as client:
            assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("damage", ["nonsense", "empty", "gone"])
async def test_a_damaged_database_is_left_as_it_is_and_the_way_back_is_told(
    tmp_path: Path, damage: str
) -> None:
    async with running(tmp_path) as appliance:
        assert (await switchboard("backup", "good.db", config=appliance.config_file)).status == 0
        assert await appliance.stop() == 0
        database = appliance.folder / NAME
        match damage:
            case "nonsense":
                database.write_bytes(b"nonsense" * 1000)
            case "empty":
                database.write_bytes(b"")
            case _:
                database.unlink()
        before = database.read_bytes() if database.exists() else None
        done = await switchboard("serve", config=appliance.config_file)
        assert done.status == 3
        assert "switchboard restore BACKUP" in done.err
        assert "Traceback" not in done.err
        assert (database.read_bytes() if database.exists() else None) == before
        backup = appliance.folder / "backups" / "good.db"
        done = await switchboard("restore", str(backup), config=appliance.config_file)
        assert done.status == 0, done.err
        await appliance.restart()
        async with appliance.client() as client:
            assert (await client.get("/system/tree")).status_code == 200


async def test_a_bad_configuration_is_told_with_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("limits:\n  body: many\nlog: {levle: info}\n")
    done = await switchboard("serve", config=file)
    assert done.status == 2
    assert done.err.splitlines() == [
        f"{file}:2: limits.body: expected a whole number, got: 'many'",
        f"{file}:3: log.levle: unknown key; did you mean 'level'?",
    ]
    done = await switchboard("serve", config=tmp_path / "absent.yaml")
    assert done.status == 2


async def test_an_address_in_use_ends_it_in_words(tmp_path: Path) -> None:
    """And in nothing else: it is no crash."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "own.yaml"
        file.write_text(f"state: {tmp_path / 'state'}\nserver: {{bind: ['{address}']}}\n")
        done = await switchboard("serve", config=file)
    assert done.status == 1
    assert done.err == f"cannot listen on {address}: Address already in use\n"


async def test_a_certificate_that_is_not_there_ends_it_in_words(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    tls = f"{{certificate: {tmp_path / 'cert.pem'}, key: {tmp_path / 'key.pem'}}}"
    bind = f"['127.0.0.1:{ports()}']"
    file.write_text(f"state: {tmp_path / 'state'}\nserver: {{bind: {bind}, tls: {tls}}}\n")
    done = await switchboard("serve", config=file)
    assert done.status == 1
    assert done.err.startswith(f"cannot use {tmp_path / 'cert.pem'} with")
    assert len(done.err.splitlines()) == 1


async def test_a_state_folder_that_cannot_be_made_ends_it_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = tmp_path / "own.yaml"
    file.write_text(f"state: {tmp_path / 'file' / 'state'}\n")
    done = await switchboard("serve", config=file)
    assert done.status == 3
    assert "cannot be used" in done.err
    assert os.fspath(tmp_path / "file") in done.err
