"""The admin token of this machine is for the appliance of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.cli.base import local_client

TOKEN = "sb_of-this-machine"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    (state / "admin.token").write_text(f"{TOKEN}\n")
    file = tmp_path / "switchboard.yaml"
    file.write_text(f"state: {state}\nserver: {{bind: ['127.0.0.1:18099']}}\n")
    return file


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:1",
        "https://example.com",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com:8080",
        "http://127.0.0.1@192.0.2.1/",
        "http://127.evil.example/",
        "http://[2001:db8::1]:8080",
        "192.0.2.1:8080",
        "",
    ],
)
def test_others_do_not_get_it(config: Path, url: str) -> None:
    assert local_client(config, url, None).token is None


@pytest.mark.parametrize(
    "url", [None, "http://127.0.0.1:9", "http://127.1.2.3", "http://localhost:9", "http://[::1]:9/"]
)
def test_here_it_is_used(config: Path, url: str | None) -> None:
    assert local_client(config, url, None).token == TOKEN


def test_the_appliance_of_the_file_gets_it_wherever_it_listens(config: Path) -> None:
    config.write_text(config.read_text().replace("127.0.0.1", "192.0.2.7"))
    client = local_client(config, None, None)
    assert (client.token, client.url) == (TOKEN, "http://192.0.2.7:18099")


def test_one_that_is_given_goes_where_it_is_sent(config: Path) -> None:
    client = local_client(config, "http://192.0.2.1:1", "sb_given")
    assert (client.token, client.url) == ("sb_given", "http://192.0.2.1:1")
