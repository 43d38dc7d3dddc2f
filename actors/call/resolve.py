"""What a voice gateway gets for a number, from the configuration in force. No waiting, no disk.

contracts/runtime-config-and-calls.md has the shape; it is pinned by a test that wants VERSION
raised when it changes.
"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import msgspec

from config.prompts import is_template, template
from config.runtime import (
    Agent,
    AgentVersion,
    PhoneNumber,
    Runtime,
    Tenant,
    ToolAuth,
    as_reported,
)
from supervisor.errors import Rejected

VERSION = 1

Json = dict[str, Any]


class Resolver:
    """`runtime` gives the section in force; an index of its numbers is made once for each."""

    def __init__(
        self, runtime: Callable[[], Runtime], now: Callable[[], datetime.datetime] | None = None
    ) -> None:
        self._runtime = runtime
        self._now = now or (lambda: datetime.datetime.now(datetime.UTC))
        self._indexed: Runtime | None = None
        self._by_number: dict[str, str] = {}

    def find(self, number: str) -> tuple[str, PhoneNumber] | None:
        """A number by its id or, in whatever way it is written, by itself: (id, it)."""
        runtime = self._runtime()
        if runtime is not self._indexed:
            self._by_number = {n.number: key for key, n in runtime.phone_numbers.items()}
            self._indexed = runtime
        found = runtime.phone_numbers.get(number)
        if found is not None:
            return number, found
        key = self._by_number.get(number)
        if key is None:
            key = self._by_number.get(as_reported(number))
        return None if key is None else (key, runtime.phone_numbers[key])

    def resolve(self, number: str, call: Mapping[str, str]) -> Json:
        """The answer, for a call with these fields. Raises Rejected with what to do about it."""
        found = self.find(number)
        if found is None:
            raise _refused(
                "phone_number_not_found",
                f"there is no phone number {number[:40]!r}",
                "add it to runtime.phone_numbers in the configuration, and reload",
            )
        key, phone = found
        runtime = self._runtime()
        tenant = runtime.tenants[phone.tenant]
        if phone.agent is None:
            raise _refused(
                "agent_not_assigned",
                f"no agent answers {phone.number}",
                f"set runtime.phone_numbers.{key}.agent, and reload",
            )
        agent = runtime.agents[phone.agent]
        if agent.published is None:
            raise _refused(
                "agent_not_published",
                f"no version of the agent {agent.name!r} is published",
                f"set runtime.agents.{phone.agent}.published to one of its versions, and reload",
            )
        version = agent.versions[str(agent.published)]
        integrations = [
            (name, tool)
            for name in version.integrations
            if (tool := runtime.integrations[name]).enabled
        ]
        webhooks = [
            (name, hook) for name in version.webhooks if (hook := runtime.webhooks[name]).enabled
        ]
        has = [tool for _, found in integrations for tool in found.allowed_tools]
        has += [found.tool_name for _, found in webhooks]
        policy = version.tool_policy
        return {
            "config_version": VERSION,
            "tenant": {"id": phone.tenant, "name": tenant.name, "timezone": tenant.timezone},
            "phone_number": {"id": key, "e164": phone.number, "provider": phone.provider},
            "agent": {
                "id": phone.agent,
                "name": agent.name,
                "language": version.language,
                "voice": version.voice,
                "llm": version.llm,
                "system_prompt": self._prompt(key, phone, tenant, agent, version, call),
                "tool_policy": {
                    "allow": allowed(policy.allow, policy.deny, has),
                    "deny": policy.deny,
                    "max_calls_per_turn": policy.max_calls_per_turn,
                },
                "escalation_policy": version.escalation_policy,
            },
            "integrations": [
                {
                    "id": name,
                    "type": tool.type,
                    "endpoint": tool.endpoint,
                    "origin": tool.origin or _origin(tool.endpoint),
                    "protocol_version": tool.protocol_version,
                    "timeout_secs": _whole(tool.timeout_secs),
                    "auth": _auth(tool.auth),
                    "allowed_tools": [t for t in tool.allowed_tools if t not in policy.deny],
                }
                for name, tool in integrations
            ],
            "webhooks": [
                {
                    "id": name,
                    "name": tool.name,
                    "tool_name": tool.tool_name,
                    "description": tool.description,
                    "endpoint": tool.endpoint,
                    "http_method": tool.http_method,
                    "timeout_secs": _whole(tool.timeout_secs),
                    "status": "active",
                    "headers": tool.headers,
                    "input_schema": tool.input_schema,
                    "auth": _auth(tool.auth),
                }
                for name, tool in webhooks
                if tool.tool_name not in policy.deny
            ],
            "logging": {
                "recording": tenant.logging.recording,
                "retention_days": _whole(tenant.logging.retention_days),
            },
        }

    def _prompt(
        self,
        key: str,
        phone: PhoneNumber,
        tenant: Tenant,
        agent: Agent,
        version: AgentVersion,
        call: Mapping[str, str],
    ) -> str:
        text = version.system_prompt
        if not is_template(text):
            return text
        now = self._now().astimezone(zoneinfo.ZoneInfo(tenant.timezone))
        fields = {
            "tenant": {"id": phone.tenant, "name": tenant.name, "timezone": tenant.timezone},
            "phone_number": {"id": key, "e164": phone.number, "provider": phone.provider},
            "agent": {"id": phone.agent, "name": agent.name, "language": version.language},
            "call": dict(call),
            "now": now.isoformat(timespec="seconds"),
            "date": now.strftime("%Y-%m-%d"),
            "time": now.strftime("%H:%M"),
            "weekday": now.strftime("%A"),
        }
        try:
            return template(text).render(fields)
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise _refused(
                "prompt_failed",
                f"the prompt cannot be filled in: {error}",
                f"mend runtime.agents.{phone.agent}.versions.{agent.published}.system_prompt",
            ) from error


def allowed(allow: list[str], deny: list[str], has: list[str]) -> list[str]:
    """Tools that may be used: of those that there are, all or the listed ones, less the denied."""
    there = dict.fromkeys(has)
    chosen = there if not allow else dict.fromkeys(tool for tool in allow if tool in there)
    return [tool for tool in chosen if tool not in deny]


def encode(answer: Json) -> bytes:
    """As it is sent."""
    return msgspec.json.encode(answer)


def _auth(auth: ToolAuth) -> Json:
    found: Json = {"type": auth.type}
    for name in ("token", "header", "username"):
        if value := getattr(auth, name):
            found[name] = value
    return found


def _origin(address: str) -> str:
    """Scheme, host and port of an address (RFC 6454)."""
    return "/".join(address.split("/", 3)[:3])


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _refused(code: str, message: str, action: str) -> Rejected:
    return Rejected(code, message, {"action": action})
