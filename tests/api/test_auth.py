"""Tokens: where they are given, what they allow, and that they are kept nowhere."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from api.auth import Authenticator, Identity, bearer, covers, digest
from config.model import Auth, Token
from tests.api.kit import CONFIG, handshake, is_plain, make_token, name, start_request
from tests.appliance import Appliance, running

# -- scopes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "allows", "refuses"),
    [
        ("*", ["gateway:ro", "gateway:rw", "plugin:echo:rw"], []),
        ("gateway:ro", ["gateway:ro"], ["gateway:rw", "system:ro"]),
        ("gateway:rw", ["gateway:ro", "gateway:rw"], ["system:rw", "gatewayx:rw"]),
        ("gateway:*", ["gateway:ro", "gateway:rw"], ["system:ro"]),
        ("read:*", ["gateway:ro", "events:ro", "plugin:echo:ro"], ["gateway:rw"]),
        ("plugin:rw", ["plugin:rw", "plugin:echo:rw", "plugin:echo:ro"], ["plugins:rw"]),
        ("plugin:ro", ["plugin:echo:ro"], ["plugin:echo:rw"]),
        ("plugin:echo:rw", ["plugin:echo:rw", "plugin:echo:ro"], ["plugin:rw", "plugin:other:ro"]),
    ],
)
def test_what_a_scope_covers(scope: str, allows: list[str], refuses: list[str]) -> None:
    assert [needed for needed in allows if not covers(scope, needed)] == []
    assert [needed for needed in refuses if covers(scope, needed)] == []


def test_one_scope_of_many_is_enough() -> None:
    assert Identity("x", frozenset({"events:ro", "gateway:ro"})).allows("gateway:ro")
    assert not Identity("x", frozenset()).allows("gateway:ro")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
    ],
)
def test_the_token_of_a_header(header: str, token: str | None) -> None:
    assert bearer(header) == token


def test_a_configured_token_may_be_known_by_its_digest_alone() -> None:
    authenticator = Authenticator()
    entry = Token(name="proxy", scopes=["gateway:rw"], sha256=digest("a secret of the proxy"))
    authenticator.configure(Auth(anonymous=[], tokens=[entry]))
    found = authenticator.identify("a secret of the proxy")
    assert found == Identity("proxy", frozenset({"gateway:rw"}))
    assert authenticator.identify(entry.sha256) is None
    assert authenticator.identify("") is None
    assert authenticator.identify(None) is None


# -- places -------------------------------------------------------------------------


async def test_a_token_goes_in_either_header(shared: Appliance) -> None:
    async with shared.client(token=None) as client:
        for headers in (
            {"Authorization": f"Bearer {shared.token}"},
            {"Authorization": f"bearer {shared.token}"},
            {"X-API-Key": shared.token},
            {"Authorization": "Basic eDp5", "X-API-Key": shared.token},
        ):
            answer = await client.get("/system/tree", headers=headers)
            assert answer.status_code == 200, headers


async def test_a_token_in_the_query_is_for_streams_alone(shared: Appliance) -> None:
    async with shared.client(token=None) as client:
        answer = await client.get("/system/tree", params={"api_key": shared.token})
        is_plain(answer, 401, "unauthorized")
        async with client.stream("GET", f"/events?api_key={shared.token}") as events:
            assert events.status_code == 200
        is_plain(await client.get("/events?api_key=nonsense"), 401, "unauthorized")
        is_plain(await client.get("/events"), 401, "unauthorized")
    async with shared.ws(f"api_key={shared.token}", token=None) as socket:
        assert '"hello"' in await socket.get_message()


async def test_a_websocket_needs_a_token_that_is_known(shared: Appliance) -> None:
    for query, token in (("", None), ("", "nonsense"), ("api_key=nonsense", None)):
        answer = await handshake(shared, query, token)
        is_plain(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


# -- made and revoked at run time ------------------------------------------------------


async def test_a_token_works_from_its_making_to_its_revoking(shared: Appliance) -> None:
    named = name("token")
    async with shared.client() as admin:
        token = await make_token(admin, "system:ro", named=named)
        listed = (await admin.get("/system/tokens")).json()["tokens"]
        (entry,) = [t for t in listed if t["name"] == named]
        assert entry["scopes"] == ["system:ro"]
        assert set(entry) == {"name", "scopes", "created"}
        async with shared.client(token=token) as client:
            assert (await client.get("/system/tree")).status_code == 200
            is_plain(await client.get("/system/tokens"), 403, "forbidden")
            answer = await admin.delete(f"/system/tokens/{named}")
            assert answer.json() == {"revoked": named}
            is_plain(await client.get("/system/tree"), 401, "unauthorized")
        is_plain(await admin.delete(f"/system/tokens/{named}"), 404, "not_found")


async def test_a_revoked_token_opens_no_socket(shared: Appliance) -> None:
    named = name("token")
    async with shared.client() as admin:
        token = await make_token(admin, "events:ro", named=named)
        async with shared.ws(token=token) as socket:
            assert '"hello"' in await socket.get_message()
        await admin.delete(f"/system/tokens/{named}")
    is_plain(await handshake(shared, token=token), 401, "unauthorized")


async def test_what_a_token_opened_is_closed_when_it_is_revoked(shared: Appliance) -> None:
    named = name("token")
    async with shared.client() as admin:
        token = await make_token(admin, "*", named=named)
        async with (
            shared.ws(token=token) as socket,
            shared.client(token=token) as client,
            client.stream("GET", "/events") as events,
            shared.ws() as other,
        ):
            assert '"hello"' in await socket.get_message()
            await admin.delete(f"/system/tokens/{named}")
            with trio.fail_after(5):
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        await socket.get_message()
                assert closed.value.reason is not None
                assert closed.value.reason.code == 1008
                assert "hello" in (await events.aread()).decode()
            await other.send_message('{"id":1,"method":"GET","path":"/healthz"}')
            while '"id":1' not in await other.get_message():
                continue


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a b", "scopes": ["*"]},
        {"name": "", "scopes": ["*"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["everything"]},
        {"name": "x", "scopes": "gateway:ro"},
        {"name": "x"},
    ],
)
async def test_a_token_request_that_is_wrong(shared: Appliance, body: object) -> None:
    async with shared.client() as client:
        is_plain(await client.post("/system/tokens", json=body), 422, "invalid")


async def test_two_tokens_cannot_have_one_name(shared: Appliance) -> None:
    named = name("token")
    async with shared.client() as client:
        await make_token(client, "*", named=named)
        body = {"name": named, "scopes": ["*"]}
        is_plain(await client.post("/system/tokens", json=body), 409, "conflict")


# -- configured, and open surfaces ------------------------------------------------------


async def test_tokens_and_open_surfaces_of_the_file(tmp_path: Path) -> None:
    secret = "0123456789-of-the-proxy"
    auth = {
        "anonymous": ["gateway"],
        "tokens": [{"name": "proxy", "token": "${PROXY_TOKEN}", "scopes": ["system:ro"]}],
    }
    async with running(
        tmp_path, {**CONFIG, "auth": auth}, env={"PROXY_TOKEN": secret}
    ) as appliance:
        async with appliance.client(token=secret) as client:
            assert (await client.get("/system/tree")).status_code == 200
        async with appliance.client(token=None) as client:
            started = await client.post("/gateway/start", json=start_request("gw01"))
            assert started.status_code == 200
            assert (await client.get("/gateway/status?gw_id=gw01")).status_code == 200
            assert (await client.post("/gateway/stop", json={"gw_id": "gw01"})).status_code == 200
            # Open is one surface, not all; and a token that is wrong is wrong there too.
            is_plain(await client.get("/system/tree"), 401, "unauthorized")
            is_plain(await client.get("/events"), 401, "unauthorized")
            headers = {"X-API-Key": "nonsense"}
            answer = await client.get("/gateway/status?gw_id=gw01", headers=headers)
            assert answer.status_code == 401


# -- kept nowhere -----------------------------------------------------------------------


def places(folder: Path, texts: Iterable[str]) -> list[str]:
    """Files below a folder that hold one of the texts."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts):
            found.append(path.name)
    return sorted(found)


async def test_a_token_is_kept_as_its_digest_and_told_to_nobody(tmp_path: Path) -> None:
    secret = "configured-0123456789"
    auth = {"tokens": [{"name": "proxy", "token": "${PROXY_TOKEN}", "scopes": ["*"]}]}
    async with running(
        tmp_path, {**CONFIG, "auth": auth, "log": {"level": "debug"}}, env={"PROXY_TOKEN": secret}
    ) as appliance:
        admin = appliance.token
        async with appliance.client() as client:
            made = await make_token(client, "*", named="made")
            for token in (secret, made, admin):
                headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k" + token[:3]}
                body = start_request("gw01", api_key="sip-secret-0123456789")
                await client.post("/gateway/start", json=body, headers=headers)
                await client.get(f"/events/x?api_key={token}")
                answer = await client.get(f"/gateway/status?gw_id=gw01&api_key={token}")
                assert token not in answer.text
                assert "sip-secret" not in answer.text
                async with appliance.ws(f"since=0&api_key={token}", token=None) as socket:
                    assert token not in await socket.get_message()
            tree = await client.get("/system/tree")
            dry = await client.post("/system/reload", json={"dry": True})
            for view in (tree.text, dry.text, (await client.get("/system/tokens")).text):
                assert not any(token in view for token in (secret, made, admin))
            await client.post("/gateway/stop", json={"gw_id": "gw01"})
        assert places(tmp_path, [secret, made]) == []
        assert places(tmp_path, [admin]) == ["admin.token"]
        assert (appliance.folder / "admin.token").stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(appliance.folder / "switchboard.db")) as database:
            kept = {row[0] for row in database.execute("SELECT sha256 FROM tokens")}
            events = "".join(row[0] for row in database.execute("SELECT data FROM events"))
        assert kept == {hashlib.sha256(token.encode()).hexdigest() for token in (made, admin)}
        assert "sip-secret" not in events
        assert "sip-secret" not in appliance.log.read_text()
