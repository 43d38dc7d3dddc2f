"""Logs: one JSON object a line on stderr, with the actor's path and the request's id.

Values of keys that name a secret are masked here, whoever logs them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

MASK = "***"
_SECRET_PARTS = ("password", "secret", "token", "api_key", "apikey", "authorization", "passwd",
    "passphrase", "pwd", "credential", "streamkey", "stream_key", "access_key", "accesskey",
)  # fmt: skip


def is_secret(name: str) -> bool:
    """Does a key of this name hold something that must not be shown?"""
    lowered = name.lower().replace("-", "_")
    return any(part in lowered for part in _SECRET_PARTS)


def masked(value: object) -> object:
    """A copy of JSON-like data in which the values of secret keys are `***`."""
    if isinstance(value, dict):
        return {
            k: MASK if isinstance(k, str) and is_secret(k) and v not in (None, "") else masked(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(v) for v in value]
    return value


def _mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    return {k: MASK if k != "event" and is_secret(k) and v else masked(v) for k, v in event.items()}


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Set the lowest level that is written (`debug`, `info`, `warning`, `error`) and where to."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _mask,
            structlog.processors.JSONRenderer(default=repr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
