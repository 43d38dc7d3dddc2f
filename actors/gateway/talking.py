"""A gateway's calls: their events, dialling, recordings, transcripts, the stream, commands."""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

from actors.gateway import commands, recording, records, render, stream
from actors.gateway.base import GatewayBase
from actors.gateway.launch import Launch
from actors.gateway.machine import State
from actors.gateway.messages import (
    Acknowledged,
    CommandGateway,
    GatewayView,
    Json,
    RecordingFinished,
    Redial,
    StreamChanged,
    TranscriptDone,
)
from actors.gateway.transcript import text_path
from config.model import Stream
from supervisor.actor import LATER
from supervisor.backoff import Backoff
from supervisor.errors import Rejected
from supervisor.reply import Reply

# A call that ends at once is not dialled again at once.
REDIAL = Backoff(first=1.0, cap=30.0, healthy_after=10.0)


class Talking(GatewayBase):
    """The side that is about calls."""

    async def _control_event(self, event: Json) -> None:
        told = self._calls.take(event, trio.current_time())
        await self._tell_calls(told)
        for kind, data in told:
            if kind == "gateway.call_established":
                self._start_stream()
                await self._tell_shared()
            elif kind == "gateway.call_closed":
                if not self._calls.talking:
                    self._stop_stream()
                self.spawn(self._media.finish_all)
                if data["direction"] == "outgoing":
                    self._redial_later()
                await self._renew_if_quiet()

    async def _dial(self, generation: int) -> None:
        launch, record = self._launch, self._record
        if launch is None or launch.channel is None or record is None:
            return
        self._dialled_at = trio.current_time()
        try:
            answer = await launch.channel.command("dial", str(record.request["dial"]))
            if not answer.get("ok", False):
                raise Rejected("command_failed", str(answer.get("data") or "dial was refused"))
        except Rejected as error:
            await self._announce("gateway.dial_failed", {"reason": str(error)})
            if generation == self._generation:
                self._redial_later()

    def _redial_later(self) -> None:
        record = self._record
        if (
            record is None
            or not record.request.get("dial")
            or record.request.get("loop") is not True
        ):
            return
        lasted = trio.current_time() - self._dialled_at
        self._dial_failures = REDIAL.failures_after(self._dial_failures, lasted)
        self.spawn(self._redial, REDIAL.delay(self._dial_failures, self._rng), self._generation)

    async def _redial(self, seconds: float, generation: int) -> None:
        await trio.sleep(seconds)
        await self.post(Redial(generation))

    def _start_stream(self) -> None:
        launch, record = self._launch, self._record
        if launch is None or record is None or launch.profile.stream is None or self._streaming:
            return
        self._streaming = stream.Streaming()
        self._streams.add(self._streaming)
        self.spawn(self._stream, self._streaming, launch.profile.stream)

    async def _stream(self, streaming: stream.Streaming, settings: Stream) -> None:
        record = self._record
        assert record is not None
        folder = self._services.session_folder(self._gw_id, record.session)

        async def report(state: str, detail: str) -> None:
            # ffmpeg names the address, and with it the stream's key.
            told = render.scrub(detail, render.secrets(record.request))
            await self.post(StreamChanged(streaming, state, told))

        url = str(record.request.get("rtmp_dst", ""))
        registry, path = self._services.registry, self.context.path
        await stream.stream(folder, settings, url, registry, path, streaming.over, report)
        streaming.done.set()
        await report("ended", "")

    def _stop_stream(self) -> None:
        if self._streaming is not None:
            self._streaming.over.set()
            self._streaming = None

    async def _stream_changed(self, change: StreamChanged) -> None:
        if change.state == "ended":
            await self._stream_ended(change.stream)
            return
        change.stream.told = True
        await self._announce(f"gateway.stream_{change.state}", {"detail": change.detail})

    async def _stream_ended(self, ended: stream.Streaming) -> None:
        if ended in self._streams:
            self._streams.discard(ended)
            if ended.told:
                await self._announce("gateway.stream_ended", {"detail": ""})

    async def _end_streams(self) -> None:
        """Let them send what they have, and tell it here: no message is taken any more."""
        with trio.move_on_after(stream.FLUSH + 1.0):
            for streaming in self._streams:
                await streaming.done.wait()
        for streaming in list(self._streams):
            await self._stream_ended(streaming)

    def _held(self, dump: Path) -> bool:
        """Is a call's file still being written?"""
        launch = self._launch
        if launch is None:
            return False
        pid = launch.runner.pid
        # Into a container nobody can look: its files are left alone while anybody talks.
        return self._calls.talking if pid is None else dump in recording.held_open(pid)

    async def _tell_shared(self) -> None:
        """Two calls came so close that their sound goes to one file: neither can be heard in it."""
        launch = self._launch
        if launch is None or launch.runner.pid is None:
            return
        for dump in recording.shared(launch.runner.pid):
            if dump not in launch.shared:
                launch.shared.add(dump)
                reason = "two calls were answered at the same moment, and share the file"
                await self._announce(
                    "gateway.recording_failed",
                    {"file": str(dump), "reason": reason, "again": False},
                )

    async def _recording_finished(self, done: RecordingFinished) -> None:
        record = self._record
        assert record is not None
        if done.error is not None:
            await self._recording_failed(done.dump, done.error)
            return
        wanted = "pending" if record.request.get("transcript") is True else "none"
        try:
            record.recorded = await self._services.store.write(
                records.add_recording, done, record, wanted
            )
        except Rejected as error:
            await self._recording_failed(done.dump, str(error))
            return
        recording.discard(Path(done.dump))
        self._media.done(done.dump)
        if wanted == "pending":
            self._transcripts.setdefault(done.path, (done.seconds, 0))
            self.spawn(self._media.transcribe_pending)

    async def _recording_failed(self, dump: str, reason: str) -> None:
        """Try it again later; told when that begins, and when it is given up for now."""
        tries, again_in = self._media.failed(dump)
        if again_in is not None:
            self.spawn(self._media.finish_later, again_in)
        if tries == 1 or again_in is None:
            data: Json = {
                "file": dump,
                "reason": reason,
                "tries": tries,
                "again": again_in is not None,
            }
            await self._announce("gateway.recording_failed", data)

    def _transcribed(self, path: str, percent: int) -> None:
        """Note how much of one recording is done; the row has the share of all of them."""
        record = self._record
        assert record is not None
        seconds, _before = self._transcripts.get(path, (1.0, 0))
        self._transcripts[path] = (seconds, percent)
        whole = sum(s for s, _ in self._transcripts.values()) or 1.0
        record.transcript = int(sum(s * p for s, p in self._transcripts.values()) / whole)

    async def _transcript_done(self, done: TranscriptDone) -> None:
        record = self._record
        assert record is not None
        if done.error is None:
            self._transcribed(done.path, 100)
            data: Json = {"file": str(text_path(Path(done.path)))}
        else:
            record.detail = f"the transcript failed: {done.error}"
            data = {"recording": done.path, "reason": done.error}
        state = "done" if done.error is None else "failed"
        await self._services.store.write(records.set_transcript, record, done.path, state, data)

    # -- commands and status --------------------------------------------------

    def _command(self, message: CommandGateway) -> object:
        launch = self._launch
        if self._record is None:
            raise Rejected("not_found", f"gateway {self._gw_id!r} was never started")
        if launch is None or self._record.state is not State.UP:
            state = self._record.state.value
            raise Rejected("stopped", f"gateway {self._gw_id!r} is {state}: it takes no commands")
        self.spawn(self._execute, message, launch, self.defer())
        return LATER

    async def _execute(
        self, message: CommandGateway, launch: Launch, reply: Reply[Acknowledged]
    ) -> None:
        sender = f"sip:{self._gw_id}@{launch.address}:{launch.ports.sip}"
        try:
            received = await commands.execute(message.payload, launch, self._calls, sender)
        except Rejected as error:
            reply.fail(error)
        else:
            reply.set(Acknowledged(True, received))

    def _view(self) -> GatewayView:
        record, launch = self._record, self._launch
        if record is None:
            raise Rejected("not_found", f"gateway {self._gw_id!r} was never started")
        recorded = record.recorded
        profile = self._services.settings().profiles.get(record.main_app)
        if profile is not None and profile.record:
            folder = self._services.session_folder(record.gw_id, record.session)
            recorded = max(recorded + recording.recorded(folder), self._shown)
            self._shown = recorded
        return msgspec.structs.replace(
            records.view(record),
            recording_duration=records.clock_text(recorded),
            sip=self._sip() if record.state is State.UP else None,
            pid=launch.runner.pid if launch is not None else None,
            calls=self._calls.views(),
        )
