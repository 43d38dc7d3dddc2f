"""Prompts of agents: Jinja templates in a sandbox, and what they may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import jinja2
import jinja2.meta
import jinja2.sandbox

from config.source import Path, dotted
from supervisor.log import logger

# What a prompt's template knows.
PROMPT_FIELDS = ("tenant", "phone_number", "agent", "call", "now", "date", "time", "weekday")

# Sandboxed: what is written there reaches the values that it is given, and nothing else.
_TEMPLATES = jinja2.sandbox.ImmutableSandboxedEnvironment(
    autoescape=False, undefined=jinja2.ChainableUndefined, keep_trailing_newline=True
)

_STRICT = jinja2.sandbox.ImmutableSandboxedEnvironment(
    autoescape=False, undefined=jinja2.StrictUndefined
)
# Each field with what is below it: for a look whether a template asks for anything else.
_SAMPLE = {
    "tenant": {"id": "t", "name": "Tenant", "timezone": "UTC"},
    "phone_number": {"id": "n", "e164": "+4930123456", "provider": "sip"},
    "agent": {"id": "a", "name": "Agent", "language": "en-US"},
    "call": {
        "from_number": "+4930123456",
        "to_number": "+4930123456",
        "provider": "sip",
        "provider_call_id": "c",
    },
    "now": "2026-01-01T08:00:00+00:00",
    "date": "2026-01-01",
    "time": "08:00",
    "weekday": "Thursday",
}


def is_template(text: str) -> bool:
    """Is there anything to fill in?"""
    return "{{" in text or "{%" in text or "{#" in text


@lru_cache(maxsize=4096)
def template(text: str) -> jinja2.Template:
    """A prompt's template. Raises jinja2.TemplateSyntaxError."""
    return _TEMPLATES.from_string(text)


def check_template(at: Path, text: str) -> Iterator[tuple[Path, str]]:
    """What is wrong with a prompt that stands there."""
    if not is_template(text):
        return
    try:
        unknown = jinja2.meta.find_undeclared_variables(_TEMPLATES.parse(text))
    except jinja2.TemplateSyntaxError as error:
        yield at, f"no usable template: {error.message} (line {error.lineno} of the text)"
        return
    names = sorted(unknown - set(PROMPT_FIELDS))
    for name in names:
        yield at, f"unknown field {name!r}; known: {', '.join(PROMPT_FIELDS)}"
    if names:
        return
    try:
        _STRICT.from_string(text).render(_SAMPLE)
    except jinja2.UndefinedError as error:
        yield at, f"unknown field: {error.message}"
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        # With other values it may do: a resolve says what is wrong with those that it has.
        logger.debug("prompt_not_tried", path=dotted(at), error=str(error))
