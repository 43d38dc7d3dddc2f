"""Templates of a profile: what they may name, what is refused, what is left alone."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.ports import Assigned
from actors.gateway.render import check_fields, fields, fill, render, write_files
from config.model import Profile, Ready
from supervisor.errors import Rejected

PORTS = Assigned(sip=6000, control=7000, rtp_first=8000, rtp_last=8019)
REQUEST = {"gw_id": "gw01", "room": "blue", "main_app": "recording"}


def values(request: dict[str, object] | None = None) -> dict[str, str]:
    return fields({**REQUEST, **(request or {})}, "127.0.0.1", PORTS, Path("/run/g"), Path("/rec"))


def test_the_fields_of_the_request_and_of_the_launch() -> None:
    found = values({"from_id": "me", "loop": True, "webrtc_domain": {"provider": {"name": "x"}}})
    assert found["gw_id"] == "gw01"
    assert found["from_id"] == "me"
    assert found["loop"] == "true"
    assert json.loads(found["webrtc_domain"]) == {"provider": {"name": "x"}}
    assert (found["address"], found["sip_port"], found["control_port"]) == (
        "127.0.0.1",
        "6000",
        "7000",
    )
    assert (found["rtp_first"], found["rtp_last"]) == ("8000", "8019")
    assert (found["folder"], found["recordings"]) == ("/run/g", "/rec")
    assert found["python"] == sys.executable


@pytest.mark.parametrize(
    "name", ["type", "from_id", "prefix", "rtmp_dst", "dial", "api_key", "recipient_mail"]
)
def test_an_optional_field_of_the_contract_is_empty_when_it_is_absent(name: str) -> None:
    assert fill(f"<{{{name}}}>", values()) == "<>"
    assert fill(f"<{{{name}}}>", values({name: None})) == "<>"
    assert fill(f"<{{{name}}}>", values({name: "x"})) == "<x>"


def test_a_request_cannot_stand_in_for_the_launchs_own_fields() -> None:
    found = values({"sip_port": "1", "folder": "/etc", "python": "/bin/sh"})
    assert (found["sip_port"], found["folder"], found["python"]) == (
        "6000",
        "/run/g",
        sys.executable,
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": 1}}',
        "{unknown}",
        "{ gw_id }",
        "{}",
        "{{",
        "{0}",
        "{gw-id}",
        "awk '{print $1; a[\"x\"]}'",
    ],
)
def test_braces_that_name_no_field_are_left_alone(text: str) -> None:
    assert fill(text, values()) == text


def test_json_with_a_field_in_it() -> None:
    assert fill('{"id": "{gw_id}"}', values()) == '{"id": "gw01"}'


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_what_a_client_gives_is_never_a_template_itself(room: str) -> None:
    assert fill("{room}", {"room": room, "secret": "no"}) == room


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\t", "\x1b", "\x7f"])
def test_control_characters_are_refused_by_the_fields_name(character: str) -> None:
    with pytest.raises(Rejected, match="dial: control characters") as refused:
        check_fields({**REQUEST, "dial": f"sip:x{character}ausrc_srate 8000"})
    assert refused.value.code == "invalid"


def test_other_characters_are_taken() -> None:
    check_fields({**REQUEST, "room": "Sala «Blu» – 3 £ 🎙", "n": 1, "deep": {"x": "\\n"}})


def test_a_whole_profile(tmp_path: Path) -> None:
    profile = Profile(
        command=["run", "--id", "{gw_id}", "{room}"],
        env={"ROOM": "in {room}"},
        files={"config": "listen {address}:{sip_port}\n"},
        ready=Ready(when="running"),
    )
    rendered = render(profile, REQUEST, values(), tmp_path)
    assert rendered.argv == ["run", "--id", "gw01", "blue"]
    assert rendered.env["ROOM"] == "in blue"
    assert rendered.env["GATEWAY_ROOM"] == "blue"
    assert rendered.env["GATEWAY_SIP_PORT"] == "6000"
    assert rendered.files["config"] == "listen 127.0.0.1:6000\n"
    assert json.loads(rendered.files["request.json"]) == REQUEST
    assert rendered.folder == tmp_path


def test_an_argument_stays_one_argument_whatever_is_in_it(tmp_path: Path) -> None:
    profile = Profile(command=["run", "{room}"], ready=Ready(when="running"))
    room = "a b; rm -rf / && $(id) '\""
    assert render(profile, {}, {"room": room}, tmp_path).argv == ["run", room]


def test_a_name_that_is_no_variables_is_left_out_of_the_environment(tmp_path: Path) -> None:
    profile = Profile(command=["run"], ready=Ready(when="running"))
    found = render(profile, {}, {"é": "1", "a-b": "2", "ok": "3", "nul": "\0"}, tmp_path).env
    assert found == {"GATEWAY_OK": "3"}


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    profile = Profile(command=["run"], files={"secret": "{api_key}"}, ready=Ready(when="running"))
    folder = tmp_path / "gateways" / "gw01"
    write_files(render(profile, REQUEST, values({"api_key": "k"}), folder), folder)
    assert (folder / "secret").read_text() == "k"
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "request.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
