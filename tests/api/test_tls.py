"""TLS by configuration: certificates that work, are renewed, and are not any good."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from tests.api.kit import is_plain
from tests.appliance import ROOT, Appliance, running


def certificate(folder: Path, name: str) -> dict[str, str]:
    """A self-signed certificate for 127.0.0.1, as `server.tls` wants it."""
    paths = {"certificate": str(folder / f"{name}.pem"), "key": str(folder / f"{name}.key")}
    what = f"/CN={name}"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += f" -subj {what} -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", paths["key"], "-out", paths["certificate"]]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return paths


def trusting(tls: dict[str, str]) -> ssl.SSLContext:
    """A client's trust in one certificate."""
    return ssl.create_default_context(cafile=tls["certificate"])


async def get(appliance: Appliance, trust: ssl.SSLContext, path: str) -> httpx.Response:
    headers = {"X-API-Key": appliance.token}
    async with httpx.AsyncClient(verify=trust, headers=headers, trust_env=False) as client:
        return await client.get(appliance.url + path)


@pytest.fixture
async def secured(tmp_path: Path) -> Appliance:
    """An appliance with a certificate, not started."""
    return Appliance(tmp_path / "tls", {"server": {"tls": certificate(tmp_path, "one")}})


async def started(appliance: Appliance) -> None:
    """Start, and wait for it without asking over plain HTTP."""
    appliance.launch()
    trust = trusting(appliance.config["server"]["tls"])
    with trio.fail_after(20):
        while True:
            assert appliance.running, appliance.log.read_text()
            try:
                if (await get(appliance, trust, "/readyz")).status_code == 200:
                    return
            except (httpx.TransportError, FileNotFoundError):
                await trio.sleep(0.05)


async def test_requests_and_sockets_are_encrypted(secured: Appliance) -> None:
    try:
        await started(secured)
        trust = trusting(secured.config["server"]["tls"])
        assert (await get(secured, trust, "/system/tree")).status_code == 200
        async with secured.ws(ssl_context=trust) as socket:
            assert '"hello"' in await socket.get_message()
        with pytest.raises(httpx.TransportError):
            await get(secured, ssl.create_default_context(), "/health")
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"http://{secured.address}/health")
        assert await secured.stop() == 0
    finally:
        await secured.end()


async def test_the_command_line_trusts_the_local_appliance(secured: Appliance) -> None:
    try:
        await started(secured)
        for arguments in (["tree", "--json"], ["events", "--since", "0", "--count", "1"]):
            command = [sys.executable, "-m", "api.cli", *arguments]
            done = await trio.run_process(
                [*command, "--config", str(secured.config_file)],
                cwd=ROOT,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    finally:
        await secured.end()


async def test_a_renewed_certificate_is_used_and_a_half_written_one_is_not(
    secured: Appliance, tmp_path: Path
) -> None:
    tls = secured.config["server"]["tls"]
    try:
        await started(secured)
        old = trusting(tls)
        other = certificate(tmp_path, "two")
        Path(tls["certificate"]).write_bytes(Path(other["certificate"]).read_bytes())
        # Its key is not there yet: the certificate before serves on.
        assert (await get(secured, old, "/health")).status_code == 200
        Path(tls["key"]).write_bytes(Path(other["key"]).read_bytes())
        assert (await get(secured, trusting(other), "/health")).status_code == 200
        with pytest.raises(httpx.TransportError):
            await get(secured, old, "/health")
    finally:
        await secured.end()


async def test_a_certificate_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    tls = {"certificate": str(tmp_path / "absent.pem"), "key": str(tmp_path / "absent.key")}
    appliance = Appliance(tmp_path / "tls", {"server": {"tls": tls}})
    try:
        appliance.launch()
        assert await appliance.exited() == 1
        assert "absent.pem" in appliance.log.read_text()
    finally:
        await appliance.end()


async def test_a_certificate_that_cannot_be_used_refuses_the_reload(tmp_path: Path) -> None:
    good = certificate(tmp_path, "one")
    (tmp_path / "bad.pem").write_text("nonsense")
    async with running(tmp_path) as appliance:
        bad = {"certificate": str(tmp_path / "bad.pem"), "key": good["key"]}
        address = appliance.url
        appliance.write_config({"server": {"tls": bad}})
        async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
            headers = {"X-API-Key": appliance.token}
            answer = await client.post("/system/reload", headers=headers)
            assert "bad.pem" in is_plain(answer, 409, "conflict")
            assert (await client.get("/health")).status_code == 200
