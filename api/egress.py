"""contracts/egress.md as operations: parse, ask the queue, shape the answer."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec

from actors.egress.library import TYPES, Library
from actors.egress.messages import (
    CapacityView,
    DeleteTask,
    GetCapacity,
    GetTask,
    ListTasks,
    QueueMessage,
    SetSpotlight,
    StopTask,
    Submit,
    TaskView,
    UploadAgain,
)
from actors.egress.request import Wanted
from api.errors import EGRESS, ApiError
from api.operation import Answer, Call, FileAnswer, Nothing, Operation
from supervisor.errors import Rejected
from supervisor.ref import Ref

# `$` also matches before a line end at the end: what follows it keeps that out.
RequestId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{1,32}$(?!\n)")]
APP = r"^[0-9A-Za-z][0-9A-Za-z_.-]{0,63}$"
NEWEST = 2**62


class StartRequest(msgspec.Struct, kw_only=True):
    """Body of a start. What `payload` may hold is said in actors/egress/request.py."""

    request_id: RequestId
    cmd: Literal["record", "snapshot"]
    payload: dict[str, Any]


class StartShown(msgspec.Struct, kw_only=True):
    """The same as the documents show it. Other fields of `payload` are kept and have no effect."""

    request_id: RequestId
    cmd: Literal["record", "snapshot"]
    payload: Wanted


class Asked(msgspec.Struct, kw_only=True):
    """Body of a stop or a status."""

    request_id: RequestId


class SpotlightRequest(msgspec.Struct, kw_only=True):
    """Body of a change of the large one."""

    request_id: RequestId
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Started(msgspec.Struct, kw_only=True):
    """Answer to a start."""

    request_id: str
    task_id: str
    status: Literal["enqueued"] = "enqueued"


class StopAnswer(msgspec.Struct, kw_only=True):
    """Answer to a stop: `enqueued`, or `completed` where the task had ended."""

    request_id: str
    task_id: str
    status: Literal["enqueued", "completed"]
    message: str


class StopRefused(msgspec.Struct, kw_only=True):
    """Answer to a stop of a task that there is not."""

    request_id: str
    task_id: str
    status: Literal["rejected"] = "rejected"
    error: str


class StatusAnswer(TaskView, kw_only=True):
    """A task, with the id of the request that asked for it."""

    request_id: str


class ListQuery(msgspec.Struct):
    """Query of a list: `before` is the `next` of the page before."""

    before: Annotated[int, msgspec.Meta(ge=1, le=NEWEST)] = NEWEST
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    state: Literal["ENQUEUED", "PROCESSING", "STOPPING", "STOPPED", "FAILED", "TIMEOUT"] | None = (
        None
    )
    channel: str | None = None


class ListAnswer(msgspec.Struct, kw_only=True):
    """Tasks, the newest first."""

    tasks: list[TaskView]
    next: int | None


class Done(msgspec.Struct, kw_only=True):
    """It was done."""

    request_id: str = ""
    task_id: str
    status: Literal["ok"] = "ok"


class UploadsAnswer(msgspec.Struct, kw_only=True):
    """How many objects are tried again."""

    task_id: str
    objects: int


class EgressApi:
    """The handlers."""

    def __init__(self, queue: Ref[QueueMessage], files: Library) -> None:
        self._queue = queue
        self._files = files

    async def start(self, call: Call[Nothing, StartRequest]) -> Started:
        """POST /egress/v1/{app_id}/tasks."""
        body = call.body
        canonical = msgspec.json.encode({"cmd": body.cmd, "payload": body.payload}, order="sorted")
        message = Submit(
            _app(call.params),
            body.request_id,
            body.cmd,
            body.payload,
            hashlib.sha256(canonical).hexdigest(),
        )
        kept = await self._queue.ask(message, 20.0)
        return Started(request_id=body.request_id, task_id=kept.task_id)

    async def stop(self, call: Call[Nothing, Asked]) -> StopAnswer | Answer:
        """POST /egress/v1/{app_id}/tasks/{task_id}/stop."""
        task_id, request_id = call.params["task_id"], call.body.request_id
        try:
            taken = await self._queue.ask(StopTask(_app(call.params), task_id))
        except Rejected as error:
            if error.code != "not_found":
                raise
            refused = StopRefused(request_id=request_id, task_id=task_id, error=error.message)
            return Answer(refused, 404)
        if taken.over:
            message = f"Task {task_id} has ended: {taken.state}"
            return StopAnswer(
                request_id=request_id, task_id=task_id, status="completed", message=message
            )
        message = f"Stop task enqueued for task {task_id}"
        return StopAnswer(
            request_id=request_id, task_id=task_id, status="enqueued", message=message
        )

    async def status(self, call: Call[Nothing, Asked]) -> StatusAnswer:
        """POST /egress/v1/{app_id}/tasks/{task_id}/status."""
        view = await self._view(call.params)
        fields = {name: getattr(view, name) for name in view.__struct_fields__}
        return StatusAnswer(request_id=call.body.request_id, **fields)

    async def task(self, call: Call[Nothing, Nothing]) -> TaskView:
        """GET /egress/v1/{app_id}/tasks/{task_id}."""
        return await self._view(call.params)

    async def _view(self, params: dict[str, str]) -> TaskView:
        return await self._queue.ask(GetTask(_app(params), params["task_id"]))

    async def list_tasks(self, call: Call[ListQuery, Nothing]) -> ListAnswer:
        """GET /egress/v1/{app_id}/tasks."""
        query = call.query
        page = await self._queue.ask(
            ListTasks(_app(call.params), query.before, query.limit, query.state, query.channel)
        )
        return ListAnswer(tasks=page.tasks, next=page.next)

    async def spotlight(self, call: Call[Nothing, SpotlightRequest]) -> Done:
        """POST /egress/v1/{app_id}/tasks/{task_id}/spotlight."""
        task_id = call.params["task_id"]
        await self._queue.ask(SetSpotlight(_app(call.params), task_id, call.body.user))
        return Done(request_id=call.body.request_id, task_id=task_id)

    async def delete(self, call: Call[Nothing, Nothing]) -> Done:
        """DELETE /egress/v1/{app_id}/tasks/{task_id}."""
        task_id = call.params["task_id"]
        await self._queue.ask(DeleteTask(_app(call.params), task_id), 30.0)
        return Done(task_id=task_id)

    async def upload_again(self, call: Call[Nothing, Nothing]) -> UploadsAnswer:
        """POST /egress/v1/{app_id}/tasks/{task_id}/upload."""
        task_id = call.params["task_id"]
        count = await self._queue.ask(UploadAgain(_app(call.params), task_id))
        return UploadsAnswer(task_id=task_id, objects=count)

    async def file(self, call: Call[Nothing, Nothing]) -> FileAnswer | Answer:
        """GET /egress/v1/{app_id}/tasks/{task_id}/files/{name}."""
        params = call.params
        found = await self._files.find(_app(params), params["task_id"], params["name"])
        if found.path is None:
            fresh = (("Cache-Control", "no-store"),)
            return Answer(found.text, 200, fresh, found.content_type)
        return FileAnswer(found.path, found.content_type)

    async def capacity(self, _call: Call[Nothing, Nothing]) -> CapacityView:
        """GET /egress/v1/capacity."""
        return await self._queue.ask(GetCapacity())

    def operations(self) -> list[Operation]:
        """The rows of the table."""
        base = "/egress/v1/{app_id}/tasks"
        one = f"{base}/{{task_id}}"

        def row(
            id: str, method: str, path: str, summary: str, handler: Any, answer: Any, **more: Any
        ) -> Operation:
            scope = "egress:ro" if method == "GET" or id == "egressStatus" else "egress:rw"
            more.setdefault("scope", scope)
            return Operation(
                id=id, method=method, path=path, surface=EGRESS, summary=summary,
                handler=handler, answer=answer, body_status=400, query_status=400, **more,
            )  # fmt: skip

        return [
            row(
                "startTask", "POST", base,
                "Record, or take snapshots of, a channel or a web page.",
                self.start, Started, body=StartRequest, body_schema=StartShown, creates=True,
                errors=(400, 409, 503, 507),
            ),
            row(
                "stopTask", "POST", f"{one}/stop", "End a task in order.",
                self.stop, StopAnswer, body=Asked, errors=(400, 404, 507),
            ),
            row(
                "egressStatus", "POST", f"{one}/status",
                "How a task is: state, files, progress, parts.",
                self.status, StatusAnswer, body=Asked, errors=(400, 404),
            ),
            row(
                "listTasks", "GET", base, "An app's tasks, the newest first, a page at a time.",
                self.list_tasks, ListAnswer, query=ListQuery, errors=(400,),
            ),
            row(
                "getTask", "GET", one, "One task, as its status.", self.task, TaskView,
                errors=(400, 404),
            ),
            row(
                "deleteTask", "DELETE", one, "Delete a task that has ended, with its files.",
                self.delete, Done, errors=(400, 404, 409, 507),
            ),
            row(
                "setSpotlight", "POST", f"{one}/spotlight",
                "Make another user the large one, while it records.",
                self.spotlight, Done, body=SpotlightRequest, errors=(400, 404, 409, 507),
            ),
            row(
                "uploadAgain", "POST", f"{one}/upload",
                "Try again the uploads of a task that were given up.",
                self.upload_again, UploadsAnswer, errors=(400, 404, 507),
            ),
            row(
                "getFile", "GET", f"{one}/files/{{name:path}}",
                "A file of a task, in ranges where asked; a playlist also while it records.",
                self.file, bytes, errors=(400, 404, 409, 416), files=tuple(TYPES.values()),
            ),
            row(
                "egressCapacity", "GET", "/egress/v1/capacity",
                "What the machine has for tasks, what is set aside, and why nothing is claimed.",
                self.capacity, CapacityView,
            ),
        ]  # fmt: skip


def _app(params: dict[str, str]) -> str:
    app_id = params["app_id"]
    if re.fullmatch(APP, app_id) is None:
        raise ApiError(400, "invalid", "app_id: expected letters, digits, `_`, `.` and `-`")
    return app_id
