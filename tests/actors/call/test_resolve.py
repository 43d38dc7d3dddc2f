"""What a voice gateway gets for a number: its shape, its tools, its prompt, and refusals."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from actors.call.resolve import VERSION, Resolver, allowed, encode
from config.runtime import Runtime
from supervisor.errors import Rejected
from tests.config.files import loaded

TEXT = """\
runtime:
  tenants:
    acme:
      name: Acme
      timezone: Asia/Kolkata
      logging: {recording: {generate_stereo: false}, retention_days: 7.5}
  agents:
    desk:
      tenant: acme
      name: Front Desk
      published: 2
      versions:
        1: {system_prompt: Old.}
        2:
          system_prompt: "Be brief."
          language: en-IN
          voice: {provider: google, name: Fenrir}
          llm: {provider: google, model: models/x}
          tool_policy: {allow: [], deny: []}
          escalation_policy: {enabled: true, to: "+918000000000"}
          integrations: [crm, old]
          webhooks: [ticket, quiet]
  integrations:
    crm:
      tenant: acme
      endpoint: "https://crm.example/mcp"
      origin: "https://crm.example"
      auth: {type: bearer, token: t0k3n}
      allowed_tools: [search, get_customer]
    old: {tenant: acme, endpoint: "https://old.example", allowed_tools: [gone], enabled: false}
  webhooks:
    ticket:
      tenant: acme
      name: Create ticket
      tool_name: create_ticket
      description: Open a support ticket
      endpoint: "https://t.example/tickets"
      headers: {x-api-key: k3y}
      input_schema: {type: object, properties: {subject: {type: string}}, required: [subject]}
      auth: {type: header, header: x-auth, token: t0k3n}
    quiet: {tenant: acme, name: Q, tool_name: quiet, endpoint: "https://q.example", enabled: false}
  phone_numbers:
    front: {number: "+918012345678", tenant: acme, agent: desk, provider: plivo}
    free: {number: "+918012345679", tenant: acme}
"""
POLICY = "tool_policy: {allow: [], deny: []}"

# The answer as it is sent, by key: whoever changes it raises VERSION, and then changes it here.
PINNED = 1
AUTH = {"type": "str", "token": "str"}
SHAPE = {
    "config_version": "int",
    "tenant": {"id": "str", "name": "str", "timezone": "str"},
    "phone_number": {"id": "str", "e164": "str", "provider": "str"},
    "agent": {
        "id": "str",
        "name": "str",
        "language": "str",
        "voice": {"provider": "str", "name": "str"},
        "llm": {"provider": "str", "model": "str"},
        "system_prompt": "str",
        "tool_policy": {"allow": ["str"], "deny": [], "max_calls_per_turn": "int"},
        "escalation_policy": {"enabled": "bool", "to": "str"},
    },
    "integrations": [
        {
            "id": "str",
            "type": "str",
            "endpoint": "str",
            "origin": "str",
            "protocol_version": "str",
            "timeout_secs": "int",
            "auth": AUTH,
            "allowed_tools": ["str"],
        }
    ],
    "webhooks": [
        {
            "id": "str",
            "name": "str",
            "tool_name": "str",
            "description": "str",
            "endpoint": "str",
            "http_method": "str",
            "timeout_secs": "int",
            "status": "str",
            "headers": {"x-api-key": "str"},
            "input_schema": {
                "type": "str",
                "properties": {"subject": {"type": "str"}},
                "required": ["str"],
            },
            "auth": {**AUTH, "header": "str"},
        }
    ],
    "logging": {
        "recording": {
            "enabled": "bool",
            "record_caller": "bool",
            "record_agent": "bool",
            "generate_stereo": "bool",
        },
        "retention_days": "float",
    },
}


def shape(value: Any) -> Any:
    """Keys, and the kinds of values below them; of a list that of its first."""
    if isinstance(value, dict):
        return {key: shape(below) for key, below in value.items()}
    if isinstance(value, list):
        return [shape(below) for below in value[:1]]
    return type(value).__name__


def resolver(folder: Path, old: str = "", new: str = "", now: str = "") -> Resolver:
    """One of the configuration with one thing in it changed."""
    assert TEXT.count(old) == 1 or not old
    runtime = loaded(folder, TEXT.replace(old, new) if old else TEXT).runtime
    fixed = datetime.datetime.fromisoformat(now or "2025-12-31T20:00:00+00:00")
    return Resolver(lambda: runtime, lambda: fixed)


def answer(folder: Path, old: str = "", new: str = "") -> dict[str, Any]:
    """What is sent for the number, read again."""
    found: dict[str, Any] = json.loads(
        encode(resolver(folder, old, new).resolve("+918012345678", {}))
    )
    return found


# -- the shape ----------------------------------------


def test_a_change_of_the_shape_raises_the_version(tmp_path: Path) -> None:
    found = answer(tmp_path)
    assert shape(found) == SHAPE, "the shape of the answer has changed: raise VERSION"
    assert found["config_version"] == VERSION == PINNED


def test_its_keys_are_in_the_order_of_the_contract(tmp_path: Path) -> None:
    found = answer(tmp_path)
    assert list(found) == list(SHAPE)
    assert list(found["agent"]) == list(SHAPE["agent"])


def test_all_that_it_says_is_from_the_configuration(tmp_path: Path) -> None:
    found = answer(tmp_path)
    assert found["tenant"] == {"id": "acme", "name": "Acme", "timezone": "Asia/Kolkata"}
    assert found["phone_number"] == {"id": "front", "e164": "+918012345678", "provider": "plivo"}
    assert found["agent"]["system_prompt"] == "Be brief."
    assert found["agent"]["escalation_policy"] == {"enabled": True, "to": "+918000000000"}
    (crm,) = found["integrations"]
    assert crm["auth"] == {"type": "bearer", "token": "t0k3n"}
    assert crm["timeout_secs"] == 15
    (ticket,) = found["webhooks"]
    assert ticket["headers"] == {"x-api-key": "k3y"}
    assert ticket["auth"] == {"type": "header", "header": "x-auth", "token": "t0k3n"}
    assert (ticket["status"], ticket["http_method"]) == ("active", "post")
    assert found["logging"]["retention_days"] == 7.5
    assert found["logging"]["recording"]["generate_stereo"] is False


def test_whole_numbers_are_sent_as_such(tmp_path: Path) -> None:
    assert answer(tmp_path, "7.5", "30")["logging"]["retention_days"] == 30
    assert b'"retention_days":30}' in encode(
        resolver(tmp_path, "7.5", "30").resolve("+918012345678", {})
    )


def test_the_same_is_answered_with_the_same_bytes(tmp_path: Path) -> None:
    one, two = resolver(tmp_path), resolver(tmp_path)
    assert encode(one.resolve("front", {})) == encode(two.resolve("+918012345678", {}))


# -- tools ----------------------------------------


@pytest.mark.parametrize(
    ("policy", "allow"),
    [
        # An empty list is all that there are, without those of what is disabled.
        ("{}", ["search", "get_customer", "create_ticket"]),
        ("{allow: [], deny: [search]}", ["get_customer", "create_ticket"]),
        # A list is narrowed to what there is, in its own order.
        ("{allow: [create_ticket, search]}", ["create_ticket", "search"]),
        ("{allow: [search, gone, quiet, never]}", ["search"]),
        ("{allow: [search, search]}", ["search"]),
        ("{allow: [never]}", []),
        ("{allow: [search], deny: [search]}", []),
    ],
)
def test_which_tools_may_be_used(tmp_path: Path, policy: str, allow: list[str]) -> None:
    found = answer(tmp_path, POLICY, f"tool_policy: {policy}")
    assert found["agent"]["tool_policy"]["allow"] == allow


def test_what_is_denied_is_in_no_list(tmp_path: Path) -> None:
    found = answer(tmp_path, POLICY, "tool_policy: {deny: [search, create_ticket]}")
    assert found["agent"]["tool_policy"]["deny"] == ["search", "create_ticket"]
    assert [i["allowed_tools"] for i in found["integrations"]] == [["get_customer"]]
    assert found["webhooks"] == []


def test_what_is_disabled_is_left_out(tmp_path: Path) -> None:
    found = answer(tmp_path)
    assert [i["id"] for i in found["integrations"]] == ["crm"]
    assert [w["id"] for w in found["webhooks"]] == ["ticket"]


def test_the_rules_of_the_list_alone() -> None:
    has = ["a", "b", "a", "c"]
    assert allowed([], [], has) == ["a", "b", "c"]
    assert allowed(["c", "x", "a"], [], has) == ["c", "a"]
    assert allowed([], ["a", "x"], has) == ["b", "c"]
    assert allowed([], [], []) == allowed(["x"], [], []) == []


# -- the prompt ----------------------------------------


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Be brief. { } % {", "Be brief. { } % {"),
        ("{{ tenant.id }} {{ tenant.name }} {{ tenant.timezone }}", "acme Acme Asia/Kolkata"),
        ("{{ phone_number.id }} {{ phone_number.e164 }}", "front +918012345678"),
        ("{{ phone_number.provider }}", "plivo"),
        ("{{ agent.id }} {{ agent.name }} {{ agent.language }}", "desk Front Desk en-IN"),
        # Nine hours and a half later it is the next year there.
        ("{{ now }}", "2026-01-01T01:30:00+05:30"),
        ("{{ date }} {{ time }} {{ weekday }}", "2026-01-01 01:30 Thursday"),
        ("{{ call.from_number }}, {{ call.to_number }}", "+4930123456, "),
        ("{% if call.from_number %}known{% else %}unknown{% endif %}", "known"),
        # Nothing of the program is to be had.
        ("{{ tenant.__class__.__mro__ }}.", "."),
        ("a\\n{# why #}b\\n", "a\nb\n"),
        ("<b>{{ tenant.name }}</b> & co", "<b>Acme</b> & co"),
    ],
)
def test_a_prompt_is_filled_in(tmp_path: Path, prompt: str, text: str) -> None:
    it = resolver(tmp_path, '"Be brief."', f'"{prompt}"')
    found = it.resolve("front", {"from_number": "+4930123456", "to_number": ""})
    assert found["agent"]["system_prompt"] == text


def test_what_a_caller_is_called_is_not_read_as_a_template(tmp_path: Path) -> None:
    it = resolver(tmp_path, '"Be brief."', '"{{ call.from_number }}"')
    found = it.resolve("front", {"from_number": "{{ 7 * 7 }}<b>"})
    assert found["agent"]["system_prompt"] == "{{ 7 * 7 }}<b>"


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ 1 / 0 }}",
        "{% include 'x' %}",
        "{% for i in range(999999999) %}.{% endfor %}",
        "{{ [].append(1) }}",
        "{{ tenant.name() }}",
    ],
)
def test_a_prompt_that_cannot_be_filled_in_is_refused(tmp_path: Path, prompt: str) -> None:
    it = resolver(tmp_path, '"Be brief."', f'"{prompt}"')
    error = refused(it, "front")
    assert error.code == "prompt_failed"
    assert error.details["action"] == "mend runtime.agents.desk.versions.2.system_prompt"


# -- refusals ----------------------------------------


def refused(it: Resolver, number: str) -> Rejected:
    with pytest.raises(Rejected) as caught:
        it.resolve(number, {})
    return caught.value


@pytest.mark.parametrize("number", ["+918000000001", "nobody", "", "+", "front ", "*" * 300])
def test_a_number_that_nobody_has(tmp_path: Path, number: str) -> None:
    error = refused(resolver(tmp_path), number)
    assert error.code == "phone_number_not_found"
    assert error.details == {
        "action": "add it to runtime.phone_numbers in the configuration, and reload"
    }
    assert len(error.message) < 100


def test_a_number_that_no_agent_answers(tmp_path: Path) -> None:
    error = refused(resolver(tmp_path), "+918012345679")
    assert error.code == "agent_not_assigned"
    assert error.message == "no agent answers +918012345679"
    assert error.details == {"action": "set runtime.phone_numbers.free.agent, and reload"}


def test_an_agent_without_a_published_version(tmp_path: Path) -> None:
    error = refused(resolver(tmp_path, "published: 2", "published: null"), "front")
    assert error.code == "agent_not_published"
    assert error.details == {
        "action": "set runtime.agents.desk.published to one of its versions, and reload"
    }


# -- finding a number ----------------------------------------


@pytest.mark.parametrize(
    "number",
    ["front", "+918012345678", "918012345678", " +91 80 1234-5678 ", "+91 (80) 12345678"],
)
def test_a_number_is_found_by_its_id_and_however_it_is_written(tmp_path: Path, number: str) -> None:
    found = resolver(tmp_path).find(number)
    assert found is not None
    assert found[0] == "front"


def test_a_number_is_looked_for_in_the_configuration_in_force(tmp_path: Path) -> None:
    inforce: list[Runtime] = [loaded(tmp_path, TEXT).runtime]
    it = Resolver(lambda: inforce[0])
    assert it.find("+918012345679") is not None
    inforce[0] = loaded(tmp_path, TEXT.replace("+918012345679", "+918012345670")).runtime
    assert it.find("+918012345679") is None
    assert it.find("+918012345670") is not None
