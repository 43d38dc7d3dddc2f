"""The `runtime` section: tenants, their numbers, agents, and the tools that these may use.

contracts/runtime-config-and-calls.md shows what becomes of it. It may stand in the file itself, or
in files beside it that `include` names: large ones are kept apart, one for each tenant.
"""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal

import jsonschema
import msgspec
import phonenumbers

from config.prompts import check_template
from config.section import Section
from config.source import Document, Path, Problem, dotted

SECTIONS = ("tenants", "phone_numbers", "agents", "integrations", "webhooks")
# A hundred years: what is to be kept for longer is kept for ever, which is 0.
MOST_DAYS = 36_500

Finding = tuple[Path, str]


class Recording(Section, frozen=True, kw_only=True):
    """What the voice gateway records of a call."""

    enabled: bool = True
    record_caller: bool = True
    record_agent: bool = True
    generate_stereo: bool = True


class Logging(Section, frozen=True, kw_only=True):
    """Of a tenant: what is recorded, and for how many days calls are kept (0: for ever)."""

    recording: Recording = Recording()
    retention_days: float = 30


class Tenant(Section, frozen=True, kw_only=True):
    """Who owns numbers and agents. `region` (`IN`) is where numbers without `+` belong."""

    name: str
    timezone: str = "UTC"
    region: str = ""
    logging: Logging = Logging()


class PhoneNumber(Section, frozen=True, kw_only=True):
    """A number that is answered. `number` in any usual way of writing; in force it is E.164."""

    number: str
    tenant: str
    agent: str | None = None
    provider: str = "sip"


class Voice(Section, frozen=True, kw_only=True):
    """How an agent sounds."""

    provider: str
    name: str


class Llm(Section, frozen=True, kw_only=True):
    """What an agent thinks with."""

    provider: str
    model: str


class ToolPolicy(Section, frozen=True, kw_only=True):
    """Which tools an agent may use: empty `allow` is all that it has; `deny` counts in the end."""

    allow: list[str] = []
    deny: list[str] = []
    max_calls_per_turn: int = 3


class AgentVersion(Section, frozen=True, kw_only=True):
    """One version of an agent. `system_prompt` is a Jinja template, see prompts.py."""

    system_prompt: str
    language: str = "en-US"
    voice: Voice = Voice(provider="google", name="Fenrir")
    llm: Llm = Llm(provider="google", model="models/gemini-2.5-flash-native-audio")
    tool_policy: ToolPolicy = ToolPolicy()
    escalation_policy: dict[str, Any] = msgspec.field(default_factory=lambda: {"enabled": False})
    integrations: list[str] = []
    webhooks: list[str] = []


class Agent(Section, frozen=True, kw_only=True):
    """Who answers. `published` is the version that does; without one, nobody does."""

    tenant: str
    name: str
    published: int | None = None
    versions: dict[str, AgentVersion]


class ToolAuth(Section, frozen=True, kw_only=True):
    """How a tool's server knows us; the token as `${NAME}` or `${file:PATH}`."""

    type: Literal["none", "bearer", "header", "basic"] = "none"
    token: str = ""
    header: str = ""
    username: str = ""


class Integration(Section, frozen=True, kw_only=True):
    """A server with tools."""

    tenant: str
    endpoint: str
    type: str = "mcp_streamable_http"
    # Empty: that of the endpoint.
    origin: str = ""
    protocol_version: str = "2025-06-18"
    timeout_secs: float = 15
    auth: ToolAuth = ToolAuth()
    allowed_tools: list[str] = []
    enabled: bool = True


class ToolWebhook(Section, frozen=True, kw_only=True):
    """One tool that is an HTTP request. `input_schema` is JSON Schema."""

    tenant: str
    name: str
    tool_name: str
    endpoint: str
    description: str = ""
    http_method: Literal["get", "post", "put", "patch", "delete"] = "post"
    timeout_secs: float = 15
    headers: dict[str, str] = {}
    input_schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object"})
    auth: ToolAuth = ToolAuth()
    enabled: bool = True


class Runtime(Section, frozen=True, kw_only=True):
    """All of it, by id. `include`: files with the same sections, `*` as a wildcard."""

    include: str | list[str]
    tenants: dict[str, Tenant]
    phone_numbers: dict[str, PhoneNumber]
    agents: dict[str, Agent]
    integrations: dict[str, Integration]
    webhooks: dict[str, ToolWebhook]


# -- numbers -------------------------------------------------------------------------


def e164(text: str, region: str = "") -> str:
    """A number as E.164. Raises ValueError in words."""
    try:
        parsed = phonenumbers.parse(text, region or None)
    except phonenumbers.NumberParseException as error:
        hint = "" if region or text.strip().startswith("+") else "; begin with + and the country"
        raise ValueError(f"no telephone number: {str(error).partition(') ')[2]}{hint}") from error
    if not phonenumbers.is_possible_number(parsed):
        raise ValueError("no telephone number: its length does not fit its country")
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def as_reported(text: str, region: str = "") -> str:
    """A number as a gateway reports it, as E.164 where it can be read as one; else as it came.

    Gateways leave out the `+`, write `00` for it, or give an address (`sip:+4930…@host`). What has
    none of these is read as of `region`, where there is one.
    """
    text = text.strip()
    number = text.partition(":")[2] if text.lower().startswith(("sip:", "sips:", "tel:")) else text
    number = number.partition("@")[0].partition(";")[0].strip()
    if number.startswith("00"):
        number = f"+{number[2:]}"
    if not number.startswith("+"):
        try:
            # With its country, as most providers have it.
            parsed = phonenumbers.parse(f"+{number}")
            if phonenumbers.is_valid_number(parsed):
                return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
        except phonenumbers.NumberParseException:
            return text
    try:
        return e164(number, region)
    except ValueError:
        return text


def is_e164(text: str) -> bool:
    """Is it a number with its country?"""
    try:
        return e164(text) == text
    except ValueError:
        return False


def normalize(document: Document) -> list[Problem]:
    """Write all numbers of a document that has the right shape as E.164; what is none."""
    problems = []
    runtime = document.data["runtime"]
    tenants = runtime["tenants"]
    for key, entry in runtime["phone_numbers"].items():
        region = tenants.get(entry["tenant"], {}).get("region", "")
        try:
            entry["number"] = e164(entry["number"], region)
        except ValueError as error:
            at: Path = ("runtime", "phone_numbers", key, "number")
            problems.append(Problem(document.position(at), dotted(at), str(error)))
    return problems


# -- what types cannot say --------------------------------------------------------------


def check_runtime(runtime: Runtime, where: Callable[[Path], str]) -> Iterator[Finding]:
    """Dangling references, clashes, templates, schemas, zones; `where` a path stands."""
    check = _Check(runtime, where)
    yield from check.tenants()
    yield from check.numbers()
    yield from check.agents()
    yield from check.tools()


class _Check:
    def __init__(self, runtime: Runtime, where: Callable[[Path], str]) -> None:
        self._runtime = runtime
        self._where = where

    def tenants(self) -> Iterator[Finding]:
        for key, tenant in self._runtime.tenants.items():
            at: Path = ("runtime", "tenants", key)
            if tenant.timezone not in _zones():
                yield (*at, "timezone"), f"no time zone: {tenant.timezone!r}"
            days = tenant.logging.retention_days
            if not 0 <= days <= MOST_DAYS:
                below: Path = (*at, "logging", "retention_days")
                yield below, f"expected a number from 0 to {MOST_DAYS}, got: {days:g}"
            if tenant.region and tenant.region not in phonenumbers.SUPPORTED_REGIONS:
                yield (*at, "region"), f"expected a country as IN or DE, got: {tenant.region!r}"

    def numbers(self) -> Iterator[Finding]:
        seen: dict[str, Path] = {}
        for key, number in self._runtime.phone_numbers.items():
            at: Path = ("runtime", "phone_numbers", key)
            first = seen.setdefault(number.number, at)
            if first is not at:
                yield (
                    (*at, "number"),
                    f"{number.number} is also {dotted(first)} ({self._where(first)})",
                )
            other = seen.get(as_reported(key))
            if other is not None and other is not at:
                yield at, f"as an id it is the number of {dotted(other)} ({self._where(other)})"
            yield from self._tenant(at, number.tenant)
            if number.agent is not None:
                agent = self._runtime.agents.get(number.agent)
                if agent is None:
                    yield (*at, "agent"), f"there is no agent {number.agent!r}"
                elif agent.tenant != number.tenant:
                    yield self._foreign(at, "agent", ("runtime", "agents", number.agent), agent)

    def agents(self) -> Iterator[Finding]:
        for key, agent in self._runtime.agents.items():
            at: Path = ("runtime", "agents", key)
            yield from self._tenant(at, agent.tenant)
            if agent.published is not None and str(agent.published) not in agent.versions:
                known = ", ".join(agent.versions) or "none"
                yield (*at, "published"), f"there is no version {agent.published}; known: {known}"
            for number, version in agent.versions.items():
                below: Path = (*at, "versions", number)
                if not number.isdigit():
                    yield below, "expected a number as the name of a version"
                yield from check_template((*below, "system_prompt"), version.system_prompt)
                if version.tool_policy.max_calls_per_turn < 0:
                    policy: Path = (*below, "tool_policy", "max_calls_per_turn")
                    yield policy, "expected a number of 0 or more"
                yield from self._tools(below, agent, version)

    def _tools(self, at: Path, agent: Agent, version: AgentVersion) -> Iterator[Finding]:
        runtime = self._runtime
        kinds: list[tuple[str, list[str], Any]] = [
            ("integrations", version.integrations, runtime.integrations),
            ("webhooks", version.webhooks, runtime.webhooks),
        ]
        names: dict[str, Path] = {}
        for kind, ids, known in kinds:
            for key in ids:
                tool = known.get(key)
                if tool is None:
                    yield (*at, kind), f"there is none called {key!r} in runtime.{kind}"
                    continue
                place: Path = ("runtime", kind, key)
                if tool.tenant != agent.tenant:
                    yield self._foreign(at, kind, place, tool)
                mine = tool.allowed_tools if kind == "integrations" else [tool.tool_name]
                for name in mine:
                    first = names.setdefault(name, place)
                    if first is not place:
                        both = " and ".join(
                            f"{dotted(p)} ({self._where(p)})" for p in (first, place)
                        )
                        yield (*at, kind), f"the tool {name!r} is both {both}"

    def tools(self) -> Iterator[Finding]:
        for key, integration in self._runtime.integrations.items():
            at: Path = ("runtime", "integrations", key)
            yield from self._tenant(at, integration.tenant)
            yield from _address((*at, "endpoint"), integration.endpoint)
            yield from _timeout((*at, "timeout_secs"), integration.timeout_secs)
        for key, webhook in self._runtime.webhooks.items():
            at = ("runtime", "webhooks", key)
            yield from self._tenant(at, webhook.tenant)
            yield from _address((*at, "endpoint"), webhook.endpoint)
            yield from _timeout((*at, "timeout_secs"), webhook.timeout_secs)
            try:
                jsonschema.Draft202012Validator.check_schema(webhook.input_schema)
            except jsonschema.SchemaError as error:
                place = "".join(f".{part}" for part in error.path)
                yield (*at, "input_schema"), f"no JSON Schema: {place or 'it'}: {error.message}"

    def _tenant(self, at: Path, tenant: str) -> Iterator[Finding]:
        if tenant not in self._runtime.tenants:
            yield (*at, "tenant"), f"there is no tenant {tenant!r}"

    def _foreign(self, at: Path, key: str, place: Path, other: Any) -> Finding:
        message = (
            f"{dotted(place)} ({self._where(place)}) belongs to another tenant, {other.tenant!r}"
        )
        return (*at, key), message


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _address(at: Path, address: str) -> Iterator[Finding]:
    if not address.startswith(("http://", "https://")):
        yield at, "expected an address that begins with http:// or https://"


def _timeout(at: Path, seconds: float) -> Iterator[Finding]:
    if not (math.isfinite(seconds) and seconds > 0):
        yield at, f"expected a number above 0, got: {seconds:g}"
