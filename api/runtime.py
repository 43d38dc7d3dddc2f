"""What voice gateways ask before a call, and tell of calls that they did not take."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from actors.call import rejected
from actors.call.rejected import Rejection
from actors.call.resolve import Resolver, encode
from api.call_bodies import (
    PageQuery,
    RejectionBody,
    RejectionsAnswer,
    Reported,
    ResolveQuery,
)
from api.call_parts import stamp
from api.errors import RUNTIME
from api.operation import Answer, Call, Nothing, Operation
from config.runtime import as_reported
from supervisor.event import timestamp
from supervisor.store import Store


class RuntimeApi:
    """The handlers."""

    def __init__(self, resolver: Resolver, store: Store) -> None:
        self._resolver = resolver
        self._store = store

    async def resolve(self, call: Call[ResolveQuery, Nothing]) -> Answer:
        """GET /internal/v1/runtime/phone_numbers/{phone_number}."""
        query = call.query
        about = {name: getattr(query, name) for name in query.__struct_fields__}
        body = encode(self._resolver.resolve(call.params["phone_number"], about))
        tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
        headers = (("ETag", tag), ("Cache-Control", "private, no-cache"))
        known = call.headers.get("if-none-match", "")
        if known.strip() == "*" or tag in [t.strip().removeprefix("W/") for t in known.split(",")]:
            return Answer(b"", 304, headers)
        return Answer(body, 200, headers)

    async def report(self, call: Call[Nothing, RejectionBody]) -> Reported:
        """POST /internal/v1/runtime/rejections."""
        body = call.body
        number = body.phone_number or body.endpoint_address or body.to_number or body.to_address
        found = self._resolver.find(number) if number else None
        call_id = body.provider_call_id or body.session_external_id
        occurred_at = ""
        if body.occurred_at is not None:
            occurred_at = stamp("occurred_at", body.occurred_at)
        elif not call_id:
            # Nothing tells it from another one, so it is no repetition.
            occurred_at = timestamp()
        new = Rejection(
            0,
            occurred_at,
            body.provider,
            call_id,
            number,
            as_reported(body.from_number or body.from_address),
            as_reported(body.to_number or body.to_address),
            found[1].tenant if found is not None else "",
            body.error.code,
            msgspec.to_builtins(body),
            timestamp(),
        )
        return Reported(id=await self._store.write(rejected.report, new))

    async def rejections(self, call: Call[PageQuery, Nothing]) -> RejectionsAnswer:
        """GET /internal/v1/runtime/rejections."""
        query = call.query
        found = await self._store.read(
            rejected.page, query.code, query.tenant_id, query.before, query.limit + 1
        )
        more = len(found) > query.limit
        found = found[: query.limit]
        return RejectionsAnswer(rejections=found, next=found[-1].number if more else None)

    def operations(self) -> list[Operation]:
        """The rows of the table."""

        def row(
            id: str, method: str, path: str, summary: str, handler: Any, answer: Any, **more: Any
        ) -> Operation:
            return Operation(
                id=id, method=method, path=path, surface=RUNTIME, summary=summary,
                handler=handler, answer=answer, **more,
            )  # fmt: skip

        return [
            row(
                "resolveNumber", "GET", "/internal/v1/runtime/phone_numbers/{phone_number}",
                "What a voice gateway needs to answer a number, with the secrets of its tools.",
                self.resolve, dict[str, Any], query=ResolveQuery, scope="runtime:ro",
                errors=(304, 404, 409, 422, 500),
            ),
            row(
                "reportRejection", "POST", "/internal/v1/runtime/rejections",
                "A voice gateway did not take a call.", self.report, Reported,
                body=RejectionBody, scope="runtime:rw", errors=(422, 507),
            ),
            row(
                "listRejections", "GET", "/internal/v1/runtime/rejections",
                "Calls that were not taken, the newest first.", self.rejections,
                RejectionsAnswer, query=PageQuery, scope="runtime:ro", errors=(422,),
            ),
        ]  # fmt: skip
