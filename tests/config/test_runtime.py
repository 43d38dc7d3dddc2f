"""The runtime section: what it may say, and what is told of one that says something wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.call.resolve import Resolver
from tests.config.files import loaded, problems

BASE = """\
runtime:
  tenants:
    acme: {name: Acme, timezone: Asia/Kolkata, region: IN}
    other: {name: Other}
  agents:
    desk:
      tenant: acme
      name: Desk
      published: 1
      versions:
        1: {system_prompt: Be brief., integrations: [crm], webhooks: [ticket]}
  integrations:
    crm: {tenant: acme, endpoint: "https://crm.example/mcp", allowed_tools: [search]}
  webhooks:
    ticket: {tenant: acme, name: T, tool_name: create_ticket, endpoint: "https://t.example/"}
  phone_numbers:
    front: {number: "+918012345678", tenant: acme, agent: desk}
"""


def changed(old: str, new: str) -> str:
    """The configuration with one thing in it changed."""
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


def test_one_that_is_right_is_taken(tmp_path: Path) -> None:
    runtime = loaded(tmp_path, BASE).runtime
    assert runtime.phone_numbers["front"].agent == "desk"
    assert runtime.agents["desk"].versions["1"].webhooks == ["ticket"]


# -- numbers ----------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "+918012345678",
        "+91 80 1234 5678",
        "+91-80-1234-5678",
        "(+91) 80 1234 5678",
        "tel:+91-80-1234-5678",
        # Without its country it belongs to the tenant's region.
        "080 1234 5678",
        "08012345678",
        "8012345678",
        "0091 80 1234 5678",
    ],
)
def test_a_number_is_kept_as_e164_however_it_is_written(tmp_path: Path, written: str) -> None:
    text = changed('"+918012345678"', f'"{written}"')
    assert loaded(tmp_path, text).runtime.phone_numbers["front"].number == "+918012345678"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("nobody", "no telephone number: "),
        ("", "no telephone number: "),
        ("+91", "no telephone number: "),
        ("+999 123 456 789", "no telephone number: "),
        ("+9180", "no telephone number: its length does not fit its country"),
        ("+91801234567890123", "no telephone number: its length does not fit its country"),
    ],
)
def test_what_is_no_number_is_told_with_its_line(tmp_path: Path, written: str, told: str) -> None:
    (found,) = problems(tmp_path, changed('"+918012345678"', f'"{written}"'))
    assert found.startswith(f"17: runtime.phone_numbers.front.number: {told}")


def test_a_number_without_country_needs_a_region(tmp_path: Path) -> None:
    (found,) = problems(
        tmp_path, changed('"+918012345678"', '"080 1234 5678"').replace(", region: IN", "")
    )
    assert found.startswith("17: runtime.phone_numbers.front.number: no telephone number: ")
    assert found.endswith("; begin with + and the country")


def test_a_number_that_two_entries_have_names_both_places(tmp_path: Path) -> None:
    text = BASE + '    back: {number: "080 1234 5678", tenant: acme, agent: desk}\n'
    (found,) = problems(tmp_path, text)
    assert found == (
        "18: runtime.phone_numbers.back.number: +918012345678 is also "
        f"runtime.phone_numbers.front ({tmp_path / 'switchboard.yaml'}:17)"
    )


# -- what points nowhere, or to somebody else's ----------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "tenant: acme, agent: desk",
            "tenant: acme, agent: dsk",
            ("17: runtime.phone_numbers.front.agent: there is no agent 'dsk'"),
        ),
        (
            "tenant: acme, agent: desk",
            "tenant: acm, agent: null",
            ("17: runtime.phone_numbers.front.tenant: there is no tenant 'acm'"),
        ),
        (
            "published: 1",
            "published: 2",
            ("9: runtime.agents.desk.published: there is no version 2; known: 1"),
        ),
        (
            "1: {system_prompt",
            "first: {system_prompt",
            ("11: runtime.agents.desk.versions.first: expected a number as the name of a version"),
        ),
        (
            "[crm]",
            "[crm, erp]",
            (
                "11: runtime.agents.desk.versions.1.integrations: there is none "
                "called 'erp' in runtime.integrations"
            ),
        ),
        (
            "[ticket]",
            "[tickets]",
            (
                "11: runtime.agents.desk.versions.1.webhooks: there is none "
                "called 'tickets' in runtime.webhooks"
            ),
        ),
        (
            "Asia/Kolkata",
            "Asia/Atlantis",
            ("3: runtime.tenants.acme.timezone: no time zone: 'Asia/Atlantis'"),
        ),
        ("Asia/Kolkata", "../UTC", "3: runtime.tenants.acme.timezone: no time zone: '../UTC'"),
        (
            "region: IN",
            "region: XX",
            ("3: runtime.tenants.acme.region: expected a country as IN or DE, got: 'XX'"),
        ),
        (
            "https://crm.example/mcp",
            "crm.example",
            (
                "13: runtime.integrations.crm.endpoint: "
                "expected an address that begins with http:// or https://"
            ),
        ),
        (
            "https://t.example/",
            "ftp://t.example/",
            (
                "15: runtime.webhooks.ticket.endpoint: "
                "expected an address that begins with http:// or https://"
            ),
        ),
    ],
)
def test_one_thing_wrong(tmp_path: Path, old: str, new: str, line: str) -> None:
    found = problems(tmp_path, changed(old, new))
    assert line in found, found


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "crm: {tenant: acme",
            "crm: {tenant: other",
            (
                "11: runtime.agents.desk.versions.1.integrations: "
                "runtime.integrations.crm ({file}:13) belongs to another tenant, 'other'"
            ),
        ),
        (
            "ticket: {tenant: acme",
            "ticket: {tenant: other",
            (
                "11: runtime.agents.desk.versions.1."
                "webhooks: runtime.webhooks.ticket ({file}:15) belongs to another tenant, 'other'"
            ),
        ),
        (
            "tenant: acme, agent: desk",
            "tenant: other, agent: desk",
            (
                "17: runtime.phone_numbers."
                "front.agent: runtime.agents.desk ({file}:6) belongs to another tenant, 'acme'"
            ),
        ),
    ],
)
def test_what_belongs_to_another_tenant_is_not_to_be_had(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    (found,) = problems(tmp_path, changed(old, new))
    assert found == line.format(file=tmp_path / "switchboard.yaml")


def test_a_tool_name_that_an_agent_would_have_twice_names_both(tmp_path: Path) -> None:
    file = tmp_path / "switchboard.yaml"
    (found,) = problems(tmp_path, changed("tool_name: create_ticket", "tool_name: search"))
    assert found == (
        "11: runtime.agents.desk.versions.1.webhooks: the tool 'search' is both "
        f"runtime.integrations.crm ({file}:13) and runtime.webhooks.ticket ({file}:15)"
    )


def test_an_agent_without_a_published_version_is_taken(tmp_path: Path) -> None:
    runtime = loaded(tmp_path, changed("published: 1", "published: null")).runtime
    assert runtime.agents["desk"].published is None


# -- templates, schemas, numbers ----------------------------------------


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("Hello {{ tenant.name", "no usable template: "),
        ("{% if call %}yes", "no usable template: "),
        ("{% nonsense %}", "no usable template: "),
        ("{{ now | nonsense }}", "no usable template: "),
        ("Hello {{ caller }}", "unknown field 'caller'; known: tenant, phone_number, agent, call,"),
        ("Hello {{ tenant.nmae }}", "unknown field: 'dict object' has no attribute 'nmae'"),
        ("{% for x in things %}{{ x }}{% endfor %}", "unknown field 'things'; known: "),
    ],
)
def test_a_prompt_that_could_not_be_filled_in(tmp_path: Path, prompt: str, told: str) -> None:
    (found,) = problems(tmp_path, changed("Be brief.", f'"{prompt}"'))
    assert found.startswith(f"11: runtime.agents.desk.versions.1.system_prompt: {told}")


def test_a_prompt_may_use_all_that_is_known(tmp_path: Path) -> None:
    prompt = (
        "{% set who = call.from_number %}{{ who }} {{ tenant.name }} {{ phone_number.e164 }}"
        " {{ agent.name }} {{ now }} {{ date }} {{ time }} {{ weekday }} { } % {"
    )
    loaded(tmp_path, changed("Be brief.", f"'{prompt}'"))


@pytest.mark.parametrize(
    "schema",
    [
        "{type: nonsense}",
        "{type: object, properties: [subject]}",
        "{required: subject}",
        "{properties: {subject: {minLength: -1}}}",
    ],
)
def test_a_schema_that_is_none(tmp_path: Path, schema: str) -> None:
    text = changed("tool_name: create_ticket", f"tool_name: create_ticket, input_schema: {schema}")
    (found,) = problems(tmp_path, text)
    assert found.startswith("15: runtime.webhooks.ticket.input_schema: no JSON Schema: ")


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("region: IN", "logging: {retention_days: -1}", "3: runtime.tenants.acme.logging."),
        ("region: IN", "logging: {retention_days: .nan}", "3: runtime.tenants.acme.logging."),
        ("region: IN", "logging: {retention_days: .inf}", "3: runtime.tenants.acme.logging."),
        ("region: IN", "logging: {retention_days: 1000000}", "3: runtime.tenants.acme.logging."),
        ("crm: {tenant", "crm: {timeout_secs: 0, tenant", "13: runtime.integrations.crm."),
        ("crm: {tenant", "crm: {timeout_secs: .inf, tenant", "13: runtime.integrations.crm."),
        ("ticket: {tenant", "ticket: {timeout_secs: .nan, tenant", "15: runtime.webhooks.ticket."),
        ("1: {system", "1: {tool_policy: {max_calls_per_turn: -1}, system", "11: runtime.agents."),
    ],
)
def test_a_number_that_could_not_be_counted_to(tmp_path: Path, old: str, new: str, at: str) -> None:
    (found,) = problems(tmp_path, changed(old, new))
    assert found.startswith(at)
    assert "expected a number" in found


@pytest.mark.parametrize(
    "line", ["idle_timeout: 0", "idle_timeout: .nan", "late: -1", "live: 0", "retention_days: .inf"]
)
def test_numbers_of_calls_are_looked_at_too(tmp_path: Path, line: str) -> None:
    found = problems(tmp_path, f"calls:\n  {line}\n")
    assert found[0].startswith(f"2: calls.{line.partition(':')[0]}: expected a number")


@pytest.mark.parametrize("line", ["late: 0", "retention_days: 0", "silence: 0"])
def test_nought_is_none_or_for_ever(tmp_path: Path, line: str) -> None:
    loaded(tmp_path, f"calls:\n  {line}\n")


def test_a_secret_that_has_the_wrong_type_is_not_told(tmp_path: Path) -> None:
    text = changed("crm: {tenant", "crm: {auth: {type: bearer, token: [s3kr1t]}, tenant")
    (found,) = problems(tmp_path, text)
    assert found.startswith("13: runtime.integrations.crm.auth.token: expected a text")
    assert "s3kr1t" not in found


# -- the packaged example ----------------------------------------


def test_the_packaged_tenant_is_beside_ones_own(tmp_path: Path) -> None:
    assert set(loaded(tmp_path, BASE).runtime.tenants) == {"acme", "other", "demo"}


def test_the_packaged_tenant_can_be_taken_away(tmp_path: Path) -> None:
    text = BASE.replace("  tenants:\n", "  tenants:\n    demo: null\n")
    text = text.replace("  agents:\n", "  agents:\n    demo: null\n")
    text = text.replace("  phone_numbers:\n", "  phone_numbers:\n    demo: null\n")
    runtime = loaded(tmp_path, text).runtime
    assert set(runtime.tenants) == {"acme", "other"}
    assert set(runtime.phone_numbers) == {"front"}


def test_taken_away_in_part_it_dangles(tmp_path: Path) -> None:
    found = problems(tmp_path, "runtime: {tenants: {demo: null}}\n")
    assert [line.partition(": ")[2] for line in found] == [
        "runtime.phone_numbers.demo.tenant: there is no tenant 'demo'",
        "runtime.agents.demo.tenant: there is no tenant 'demo'",
    ]


def test_the_packaged_number_can_be_given_to_somebody_else(tmp_path: Path) -> None:
    text = BASE + "    demo: {number: '+911234567891', tenant: acme, agent: desk}\n"
    config = loaded(tmp_path, text)
    found = Resolver(lambda: config.runtime).find("+91 12345 67891")
    assert found is not None
    assert found[0] == "demo"
