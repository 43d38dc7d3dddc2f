"""What the queue answers: how tasks are, and the small things that can be done to one."""

from __future__ import annotations

import datetime
import shutil

import trio

from actors.egress import made_records, records, upload_records
from actors.egress.claims import Open
from actors.egress.made_records import File, PartRow
from actors.egress.messages import (
    DeleteTask,
    EndRecording,
    GetTask,
    GetWorking,
    ListTasks,
    SetSpotlight,
    ShowLarge,
    Submit,
    Submitted,
    TaskPage,
    TaskView,
    UploadAgain,
)
from actors.egress.records import Task
from actors.egress.request import understand
from actors.egress.services import Services
from actors.egress.sources import fields, origins
from actors.egress.view import view
from supervisor.errors import ActorDown, AskExpired, MailboxFull, Rejected
from supervisor.event import timestamp
from supervisor.log import logger
from supervisor.ref import AnyRef
from supervisor.transaction import Reading

# A worker that is busy for longer is shown as its row says, in seconds.
VIEW_TIMEOUT = 2.0


class Answers:
    """`tasks` are the queue's open ones, by id."""

    def __init__(self, services: Services, tasks: dict[str, Open]) -> None:
        self._services = services
        self._open = tasks

    async def of_app(self, app_id: str, task_id: str) -> Task:
        """The row of a task of this app. Raises Rejected `not_found`."""
        task = await self._services.store.read(records.load, task_id)
        if task is None or task.app_id != app_id:
            raise unknown(task_id)
        return task

    def remembered_since(self) -> str:
        """Requests of tasks that ended before this are forgotten."""
        hours = datetime.timedelta(hours=self._services.remembered())
        return timestamp(datetime.datetime.now(datetime.UTC) - hours)

    async def taken_before(self, task: Task, refused: Rejected, _message: Submit) -> Submitted:
        """The answer to a start that cannot be taken now: its task, where it is a repeat."""
        since = self.remembered_since()
        kept = await self._services.store.read(records.same_request, task, since)
        if kept is None:
            raise refused
        return Submitted(kept.task_id, kept.state.value)

    async def get(self, message: GetTask) -> TaskView:
        """How a task is. Raises Rejected `not_found`."""
        task = await self.of_app(message.app_id, message.task_id)
        files, parts = await self._services.store.read(_files_and_parts, task.task_id)
        entry = self._open.get(task.task_id)
        working = None
        if entry is not None and entry.child is not None:
            try:
                working = await entry.child.ref.ask(GetWorking(), VIEW_TIMEOUT)
            except (ActorDown, AskExpired, MailboxFull, Rejected) as error:
                logger.debug("view_from_row", task_id=task.task_id, error=str(error))
        return view(task, files, len(files), parts, working, entry.waiting_for if entry else "")

    async def page(self, message: ListTasks) -> TaskPage:
        """A page of tasks."""
        rows = await self._services.store.read(
            records.page,
            message.app_id,
            message.before,
            message.limit + 1,
            message.state,
            message.channel,
        )
        more = len(rows) > message.limit
        rows = rows[: message.limit]
        views = [view(task, files, count, [], None, "") for task, files, count in rows]
        return TaskPage(views, rows[-1][0].number if more else None)

    async def show(self, message: SetSpotlight) -> None:
        """Make another user the large one."""
        task = await self.of_app(message.app_id, message.task_id)
        if task.state.terminal:
            raise Rejected("conflict", "the task has ended")
        _kind, wanted = understand(task.cmd, task.payload)
        if wanted.layout != "spotlight":
            raise Rejected("conflict", f"the layout is {wanted.layout!r}, not spotlight")
        filled = fields(task.app_id, task.task_id, wanted, task.payload)
        users = [o.user for o in origins(self._services.settings().channels, wanted, filled)]
        if message.user not in users:
            raise Rejected("invalid", f"user: {message.user!r} is not on this recording")
        await self._services.store.write(records.set_spotlight, task.task_id, message.user)
        entry = self._open.get(task.task_id)
        if entry is not None:
            entry.task.spotlight = message.user
            if entry.child is not None:
                tell(entry.child.ref, ShowLarge(message.user))

    async def upload_again(self, message: UploadAgain) -> int:
        """Try again what was given up of a task."""
        task = await self.of_app(message.app_id, message.task_id)
        count = await self._services.store.write(upload_records.again, task.task_id)
        self._services.uploads()
        return count

    async def delete(self, message: DeleteTask) -> None:
        """Delete a task that has ended, with its files."""
        task = await self.of_app(message.app_id, message.task_id)
        if not task.state.terminal:
            raise Rejected("conflict", "the task has not ended: stop it first")
        await self._services.store.write(records.forget, task.task_id)
        folder = self._services.task_folder(task.task_id).root
        # What is left of it after a kill is swept away (sweep.py).
        await trio.to_thread.run_sync(shutil.rmtree, folder, True)


def _files_and_parts(db: Reading, task_id: str) -> tuple[list[File], list[PartRow]]:
    return made_records.files(db, task_id), made_records.parts(db, task_id)


def unknown(task_id: str) -> Rejected:
    """There is no such task of this app."""
    return Rejected("not_found", f"there is no task {task_id[:80]!r}")


def tell(ref: AnyRef, message: EndRecording | ShowLarge) -> None:
    """Tell a worker; one that is gone need not know."""
    try:
        ref.tell(message)
    except (ActorDown, MailboxFull) as error:
        # A worker that is gone: the row says what is wanted, and the next one reads it.
        logger.info("worker_not_told", path=ref.path, error=str(error))
