"""Files as answers: whole or in a range (RFC 9110 §14, §13.1.5), a piece at a time."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import trio

from api.dispatch import Request, Response, error_headers
from api.errors import ApiError, surface_of

PIECE = 256 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def span(wanted: str | None, size: int) -> tuple[int, int] | None:
    """First byte and how many of a range that is asked for; None for the whole file.

    More than one range, or another unit, is the whole file, as RFC 9110 allows. Raises ValueError
    for a range with nothing in it.
    """
    match = _RANGE.fullmatch(wanted.strip()) if wanted is not None else None
    if match is None or match[0] == "bytes=-" or len(match[0]) > 60:
        return None
    if not match[1]:
        count = min(int(match[2]), size)
        if not count:
            raise ValueError("an empty range")
        return size - count, count
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    if first >= size:
        raise ValueError("it begins after the end")
    return first, last - first + 1


def _open(path: Path) -> tuple[BinaryIO, int, float]:
    file = path.open("rb")
    status = os.fstat(file.fileno())
    return file, status.st_size, status.st_mtime


async def send_file(
    receive: Any, send: Any, response: Response, request: Request, head: bool
) -> None:
    """Answer with the response's file. A client that hangs up ends it: files may be large."""
    assert response.file is not None
    try:
        file, size, changed = await trio.to_thread.run_sync(_open, response.file.path)
    except OSError:
        await _error(send, request, ApiError(404, "not_found", "there is no such file any more"))
        return
    with file:
        tag = f'"{size:x}-{int(changed * 1e6):x}"'
        headers = [
            *response.headers,
            (b"content-type", response.file.content_type.encode()),
            (b"accept-ranges", b"bytes"),
            (b"etag", tag.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        # Ranges are GET's; one that is meant for another file than this is for none of it.
        same = request.if_range is None or request.if_range == tag
        try:
            part = span(request.range if same and not head else None, size)
        except ValueError as error:
            range_header = {"Content-Range": f"bytes */{size}"}
            refused = ApiError(416, "invalid_range", f"range: {error}", headers=range_header)
            await _error(send, request, refused)
            return
        first, count = part if part is not None else (0, size)
        if part is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (first, first + count - 1, size)))
        headers.append((b"content-length", b"%d" % count))
        status = 206 if part is not None else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if not head:
            file.seek(first)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                await _pieces(send, file, count)
                nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancel_when_gone(receive: Any, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    scope.cancel()


async def _pieces(send: Any, file: BinaryIO, count: int) -> None:
    """What was promised, not more: the file may grow meanwhile."""
    while count:
        piece = await trio.to_thread.run_sync(file.read, min(PIECE, count))
        if not piece:
            return
        count -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _error(send: Any, request: Request, error: ApiError) -> None:
    surface = surface_of(request.path)
    body = surface.body(error)
    headers = [*error_headers(error), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
