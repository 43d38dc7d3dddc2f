"""Endpoints on a real store, against receivers on real sockets."""

from __future__ import annotations

import functools
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.webhook import actor
from actors.webhook.delivery_records import letter
from actors.webhook.messages import Enable, Ping, Redrive
from supervisor.child import State
from supervisor.errors import Rejected
from supervisor.mailbox import Ask
from supervisor.spec import Cause, StopReason
from supervisor.transaction import Transaction
from tests.actors.webhooks import office
from tests.appliance import ports
from tests.receiver import SECRET, Answer, Receiver, in_turn, receiver, secret, webhook

SLOW = {"backoff_first": 60.0, "backoff_cap": 60.0}


# -- what is sent -----------------------------------------------------------------------


async def test_an_event_is_sent_signed_as_the_specification_has_it(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        seq = await desk.happens("thing/a", word="grüße", nested={"n": [1, None]})
        (got,) = await it.took(1)
        event = desk.events[-1]
        epoch = desk.bench.log.epoch
        assert got.json == {
            "type": "thing.happened",
            "timestamp": event.ts,
            "data": {"word": "grüße", "nested": {"n": [1, None]}},
            "subject": "thing/a",
            "seq": seq,
            "token": f"{epoch}:{seq}",
        }
        assert got.path == "/hooks"
        assert got.id == f"msg_{epoch}_{seq}"
        assert got.headers["content-type"] == "application/json"
        assert got.headers["user-agent"].startswith("Switchboard/")


async def test_a_body_of_data_is_the_events_data_and_nothing_else(tmp_path: Path) -> None:
    more = {"body": "data", "headers": {"X-Room": "7"}}
    async with receiver() as it, office(tmp_path, hook=webhook(it, **more)) as desk:
        await desk.happens(task_id="1ta5", state="STOPPED")
        (got,) = await it.took(1)
        assert got.body == b'{"task_id":"1ta5","state":"STOPPED"}'
        assert got.headers["x-room"] == "7"


async def test_while_keys_are_changed_it_is_signed_with_each(tmp_path: Path) -> None:
    old, new = secret("o"), secret("n", 64)
    listening = receiver(secrets=(old, new))
    async with listening as it, office(tmp_path, hook=webhook(it, secret=[new, old])) as desk:
        await desk.happens()
        (got,) = await it.took(1)
        assert len(got.headers["webhook-signature"].split(" ")) == 2


async def test_only_the_topics_and_only_from_its_beginning(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path) as desk:
        await desk.happens("thing/before")
        await desk.apply(hook=webhook(it, "thing/a", "other.*"))
        await desk.happens("thing/b")
        await desk.happens("thing/a")
        (got,) = await it.took(1)
        assert got.subject == "thing/a"
        assert [d.subject for d in await desk.deliveries()] == ["thing/a"]


async def test_a_connection_is_used_again_and_nothing_is_written_for_a_2xx(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        for number in range(20):
            await desk.happens(number=number)
        got = await it.took(20)
        assert {g.connection for g in got} == {1}
        await desk.viewed(lambda v: v.pending == 0)
        assert {e.type for e in desk.events} == {"thing.happened"}
        newest, *_ = await desk.deliveries("delivered")
        assert (newest.status, newest.attempts, newest.error, newest.due) == (204, 1, "", "")
        assert newest.seconds > 0


# -- order, and what fails --------------------------------------------------------------


async def test_a_subject_that_fails_holds_itself_and_no_other(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, **SLOW)) as desk:
        it.answer = lambda got: Answer(500 if got.subject == "thing/a" else 204)
        for subject in ("thing/a", "thing/a", "thing/b", "thing/a", "thing/b", "thing/c"):
            await desk.happens(subject)
        await it.took(3)
        assert [g.subject for g in it.got].count("thing/a") == 1
        await desk.viewed(lambda v: v.pending == 3)
        waiting = await desk.deliveries("pending")
        assert [d.attempts for d in waiting] == [0, 0, 1]
        assert waiting[-1].error == "answered 500"


async def test_order_within_a_subject_stands_whatever_fails(tmp_path: Path) -> None:
    more = {"attempts": 20, "backoff_first": 0.01}
    async with receiver() as it, office(tmp_path, hook=webhook(it, **more)) as desk:
        turn = itertools.count()
        kinds = [Answer(503), Answer(cut=True), Answer(302, {"location": it.url}), Answer(404)]

        def unsteady(_got: object) -> Answer:
            number = next(turn)
            return Answer() if number % 3 == 0 else kinds[number % len(kinds)]

        it.answer = unsteady
        sent: dict[str, list[int]] = {}
        for number in range(60):
            subject = f"thing/{number % 7}"
            sent.setdefault(subject, []).append(await desk.happens(subject, number=number))
        await it.took(60)
        assert {subject: it.of(subject) for subject in sent} == sent
        assert it.most_at_once <= 8


async def test_at_most_so_many_at_once(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, concurrency=3)) as desk:
        gate = trio.Event()
        it.answer = lambda _got: Answer(gate=gate)
        for number in range(9):
            await desk.happens(f"thing/{number}")
        await it.requests(3)
        await desk.viewed(lambda v: v.pending == 9)
        assert len(it.got) == 3
        gate.set()
        await it.took(9)
        assert it.most_at_once == 3


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer(301, {"location": "http://127.0.0.1:1/"}), 301, "answered 301"),
        (Answer(404, body=b"no such hook"), 404, "answered 404"),
        (Answer(400), 400, "answered 400"),
        (Answer(cut=True), None, "the connection was closed without an answer"),
        (Answer(hang=True), None, "no answer within 0.3 s"),
    ],
    ids=["redirect", "404", "400", "cut", "hang"],
)
async def test_whatever_is_no_2xx_is_tried_again(
    tmp_path: Path, answer: Answer, status: int | None, error: str
) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, timeout=0.3)) as desk:
        it.answer = in_turn(answer, answer, Answer())
        await desk.happens()
        await it.took(1)
        first, second, third = it.got
        assert first.id == second.id == third.id
        assert first.body == second.body == third.body
        (done,) = await desk.deliveries()
        await desk.viewed(lambda v: v.pending == 0)
        (done,) = await desk.deliveries()
        assert (done.state, done.attempts) == ("delivered", 3)
        view = await desk.view()
        assert view.last_error == error
        assert view.last_failure < view.last_success


async def test_the_beginning_of_an_answer_is_kept_and_no_more_of_it_read(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, **SLOW)) as desk:
        it.answer = in_turn(Answer(500, endless=True), Answer(200, endless=True))
        await desk.happens("thing/a")
        await desk.viewed(lambda v: v.last_error == "answered 500")
        (failed,) = await desk.deliveries()
        assert failed.answer == "x" * 500
        # A 2xx is one, however long the receiver goes on after it.
        await desk.happens("thing/b")
        await desk.viewed(lambda v: v.last_success != "")
        assert [d.state for d in await desk.deliveries()] == ["delivered", "pending"]


async def test_a_slow_receiver_has_one_deadline_for_all_of_an_answer(tmp_path: Path) -> None:
    """Bytes that trickle do not put it off."""

    async def trickle(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        with suppress(trio.BrokenResourceError):
            for byte in b"HTTP/1.1 204 No Content\r\n" * 100:
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        port = ports()
        await nursery.start(functools.partial(trio.serve_tcp, trickle, port, host="127.0.0.1"))
        url = f"http://127.0.0.1:{port}/"
        async with office(tmp_path, hook=webhook(url, timeout=0.5, **SLOW)) as desk:
            await desk.happens()
            view = await desk.viewed(lambda v: v.last_error != "")
            assert view.last_error == "no answer within 0.5 s"
            (failed,) = await desk.deliveries()
            assert 0.4 < failed.seconds < 2
        nursery.cancel_scope.cancel()


async def test_retry_after_is_waited_for_up_to_the_cap(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, backoff_cap=1.0)) as desk:
        it.answer = in_turn(Answer(503, {"retry-after": "3600"}), Answer())
        await desk.happens()
        await it.took(1)
        first, second = it.got
        assert 0.9 < second.at - first.at < 3


async def test_a_receiver_that_was_down_gets_all_in_order_when_it_is_back(tmp_path: Path) -> None:
    down = Receiver()
    async with office(tmp_path, hook=webhook(down, attempts=200)) as desk:
        sent = [await desk.happens(f"thing/{number % 4}") for number in range(40)]
        await desk.viewed(lambda v: v.state == "away" and v.pending == 40)
        # Those that were not tried when it went down are not used up by its being down.
        tried = [d for d in await desk.deliveries("pending") if d.attempts]
        assert len(tried) <= 4
        async with receiver(down.port) as it:
            await it.took(40)
            assert sorted(g.seq for g in it.taken) == sent
            for number in range(4):
                assert it.of(f"thing/{number}") == sorted(it.of(f"thing/{number}"))
        view = await desk.viewed(lambda v: v.pending == 0)
        assert view.state == "active"
        assert view.dead == 0


async def test_429_holds_what_was_never_tried(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, backoff_cap=1.0)) as desk:
        it.answer = in_turn(Answer(429, {"retry-after": "1"}), Answer())
        await desk.happens("thing/a")
        await desk.viewed(lambda v: v.state == "away")
        await desk.happens("thing/b")
        await it.took(2)
        assert all(got.at - it.got[0].at > 0.9 for got in it.got[1:])


# -- dead letters -------------------------------------------------------------------------


async def test_after_the_last_try_it_is_dead_and_its_subject_goes_on(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, attempts=3)) as desk:
        dead, then = await desk.happens(token="not-told-on"), 0
        it.answer = lambda got: Answer(500 if got.seq == dead else 204, body=b"")
        then = await desk.happens()
        told = await desk.event("dead_letter")
        assert told == {
            "id": f"msg_{desk.bench.log.epoch}_{dead}",
            "seq": dead,
            "type": "thing.happened",
            "subject": "thing/a",
            "attempts": 3,
            "status": 500,
            "error": "answered 500",
        }
        (event,) = [e for e in desk.events if e.type == "webhook.dead_letter"]
        assert event.subject == "webhook/hook"
        await it.took(1)
        assert it.of("thing/a") == [then]
        assert [g.seq for g in it.got] == [dead, dead, dead, then]
        (problem,) = desk.services.board.problems()
        assert problem.startswith("webhook 'hook' has 1 dead letters")


async def test_a_dead_letter_is_redriven_with_its_id(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, attempts=1)) as desk:
        it.answer = lambda _got: Answer(500)
        for number in range(3):
            await desk.happens(number=number)
        await desk.event("dead_letter", 3)
        await desk.viewed(lambda v: (v.pending, v.dead) == (0, 3))
        it.answer = lambda _got: Answer()
        newest, _middle, oldest = await desk.deliveries("dead")
        done = await desk.router.ask(Redrive("hook", (newest.id, "msg_nobody_1", "x", newest.id)))
        assert (done.redriven, done.left) == (1, 2)
        (got,) = await it.took(1)
        assert (got.id, got.json["data"]) == (newest.id, {"number": 2})
        done = await desk.router.ask(Redrive("hook", None))
        assert (done.redriven, done.left) == (2, 0)
        await it.took(3)
        assert it.taken[1].id == oldest.id
        assert [g.json["data"]["number"] for g in it.taken] == [2, 0, 1]
        view = await desk.viewed(lambda v: v.pending == 0)
        assert view.dead == 0
        assert desk.services.board.problems() == []
        # What was delivered is no dead letter.
        assert (await desk.router.ask(Redrive("hook", (newest.id,)))).redriven == 0


async def test_what_webhooks_tell_of_themselves_goes_to_who_names_it_and_ends_there(
    tmp_path: Path,
) -> None:
    async with receiver() as it:
        down = Receiver()
        hooks = {
            "broken": webhook(down, "*", attempts=1),
            "alarm": webhook(it, "webhook"),
            "both": webhook(down, "webhook.dead_letter", attempts=1),
        }
        async with office(tmp_path, **hooks) as desk:
            await desk.happens()
            (got,) = await it.took(1)
            assert got.json["type"] == "webhook.dead_letter"
            assert got.subject == "webhook/broken"
            # That the other could not be told of it is a dead letter without an event.
            await desk.viewed(lambda v: v.dead == 1, "both")
            last = await desk.happens("thing/b")
            await desk.viewed(lambda v: v.dead == 2, "broken")
            await it.took(2)
            assert len(desk.told("dead_letter")) == 2
            assert [d.seq for d in await desk.deliveries(name="broken")] == [last, got.seq - 1]


async def test_of_these_topics_a_subject_is_told_the_first_only(tmp_path: Path) -> None:
    def ends(tx: Transaction, subject: str, how: str) -> int:
        return tx.emit(f"task.{how}", subject, {})

    async with receiver() as it:
        hook = webhook(it, "task", once=["task.stopped", "task.failed"])
        async with office(tmp_path, hook=hook) as desk:
            for how in ("started", "started", "stopped", "failed", "stopped", "started"):
                await desk.bench.store.write(ends, "task/1", how)
            await desk.bench.store.write(ends, "task/2", "failed")
            await it.took(5)
            await desk.viewed(lambda v: v.behind == 0)
            told = [(g.subject, g.json["type"]) for g in it.taken]
            assert [kind for subject, kind in told if subject == "task/1"] == [
                "task.started", "task.started", "task.stopped", "task.started",
            ]  # fmt: skip
            assert ("task/2", "task.failed") in told


# -- 410, and going on ----------------------------------------------------------------------


async def test_410_disables_it_and_nothing_is_lost(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        it.answer = lambda _got: Answer(410)
        first = await desk.happens()
        assert await desk.event("disabled") == {"reason": "answered 410"}
        view = await desk.viewed(lambda v: v.state == "disabled")
        assert view.reason == "answered 410"
        assert view.since
        later = [await desk.happens(number=number) for number in range(5)]
        (problem,) = desk.services.board.problems()
        assert problem.startswith("webhook 'hook' is disabled since 2")
        assert len(it.got) == 1
        it.answer = lambda _got: Answer()
        assert (await desk.router.ask(Enable("hook", "me"))).was_disabled
        await it.took(6)
        assert it.of("thing/a") == [first, *later]
        assert desk.told("enabled") == [{"by": "me"}]
        assert not (await desk.router.ask(Enable("hook", "me"))).was_disabled
        assert desk.told("enabled") == [{"by": "me"}]
        assert desk.services.board.problems() == []


async def test_it_stays_disabled_over_a_restart_and_another_section_enables_it(
    tmp_path: Path,
) -> None:
    async with receiver() as it:
        it.answer = lambda _got: Answer(410)
        async with office(tmp_path, hook=webhook(it)) as desk:
            await desk.happens()
            await desk.event("disabled")
        async with office(tmp_path, hook=webhook(it)) as desk:
            assert (await desk.view()).state == "disabled"
            await desk.happens()
            it.answer = lambda _got: Answer()
            assert len(it.got) == 1
            await desk.apply(hook=webhook(it, headers={"Authorization": "Bearer new"}))
            await it.took(2)
            assert desk.told("enabled") == [{"by": "configuration"}]


async def test_a_test_is_sent_at_once_also_when_it_is_disabled(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it, enabled=False)) as desk:
        it.answer = in_turn(Answer(202, body=b"hello"), Answer(500, body=b"no"), Answer(cut=True))
        back = await desk.router.ask(Ping("hook"))
        assert (back.ok, back.status, back.answer) == (True, 202, "hello")
        assert it.got[0].json["type"] == "webhook.test"
        assert it.got[0].id.startswith("msg_test_")
        back = await desk.router.ask(Ping("hook"))
        assert (back.ok, back.status, back.error, back.answer) == (False, 500, "answered 500", "no")
        back = await desk.router.ask(Ping("hook"))
        assert (back.status, back.error) == (None, "the connection was closed without an answer")
        assert await desk.deliveries() == []
        assert (await desk.view()).state == "off"


async def test_nobody_is_asked_for_a_webhook_that_there_is_not(tmp_path: Path) -> None:
    async with office(tmp_path) as desk:
        messages: list[Ask[Any]] = [Redrive("x", None), Enable("x", "me"), Ping("x")]
        for message in messages:
            with pytest.raises(Rejected, match="there is no webhook 'x'"):
                await desk.router.ask(message)
        with pytest.raises(Rejected, match="there is no webhook"):
            await desk.deliveries(name="x")


# -- restarts ----------------------------------------------------------------------------


async def test_a_stop_waits_for_the_answer_that_is_under_way(tmp_path: Path) -> None:
    async with receiver() as it:
        gate = trio.Event()
        it.answer = lambda _got: Answer(gate=gate)
        async with office(tmp_path, hook=webhook(it)) as desk:
            await desk.happens()
            await it.requests(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.child().stop, StopReason(Cause.SHUTDOWN, "test"))
                while desk.child().state is not State.STOPPING:
                    await trio.lowlevel.checkpoint()
                await desk.happens()
                gate.set()
        async with office(tmp_path, hook=webhook(it)) as desk:
            await it.took(2)
            assert len({g.id for g in it.got}) == len(it.got) == 2


async def test_what_was_cut_off_is_sent_again_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "DRAIN", 0.1)
    async with receiver() as it:
        it.answer = in_turn(Answer(hang=True), Answer())
        async with office(tmp_path, hook=webhook(it, timeout=30)) as desk:
            await desk.happens()
            await it.requests(1)
        async with office(tmp_path, hook=webhook(it)) as desk:
            await it.took(1)
            assert it.got[0].id == it.got[1].id


async def test_a_wait_goes_on_over_a_restart_and_tries_are_counted_on(tmp_path: Path) -> None:
    async with receiver() as it:
        it.answer = lambda _got: Answer(500)
        slow = webhook(it, backoff_first=1.0, backoff_cap=1.0, attempts=2)
        async with office(tmp_path, hook=slow) as desk:
            await desk.happens()
            await desk.viewed(lambda v: v.last_error != "")
        async with office(tmp_path, hook=slow) as desk:
            await desk.event("dead_letter")
            first, second = it.got
            assert second.at - first.at > 0.8


async def test_an_actor_that_crashes_goes_on_where_it_was(tmp_path: Path) -> None:
    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        for number in range(5):
            await desk.happens(f"thing/{number}")
        await it.took(5)
        await desk.child().restart(StopReason(Cause.BY_HAND, "test"))
        await desk.tree.child("router").restart(StopReason(Cause.BY_HAND, "test"))
        await desk.happens("thing/5")
        await it.took(6)
        assert len({g.id for g in it.got}) == 6


async def test_a_delivery_whose_row_is_gone_is_forgotten(tmp_path: Path) -> None:
    def forget(tx: Transaction, seq: int) -> None:
        assert letter(tx, "hook", seq) is not None
        tx.execute("DELETE FROM webhook_deliveries WHERE seq = ?", (seq,))

    async with receiver() as it, office(tmp_path, hook=webhook(it)) as desk:
        it.answer = in_turn(Answer(500), Answer())
        first = await desk.happens()
        await it.requests(1)
        await desk.viewed(lambda v: v.last_error != "")
        await desk.bench.store.write(forget, first)
        second = await desk.happens()
        await it.took(1)
        assert it.of("thing/a") == [second]


async def test_its_secret_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    async with receiver() as it:
        hook = webhook(it.url + "?key=hidden", attempts=1)
        async with office(tmp_path, hook=hook) as desk:
            it.answer = lambda _got: Answer(500)
            await desk.happens()
            await desk.event("dead_letter")
            shown = repr(await desk.view()) + repr(await desk.deliveries())
            shown += repr(desk.events)
            assert it.got[0].path == "/hooks?key=hidden"
            assert "hidden" not in shown
            assert SECRET not in shown
