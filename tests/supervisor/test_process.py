"""An OS process: its group, its output, its end. Real processes, the real clock."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

import supervisor.process
from supervisor.process import LINE_BYTES, LINES, Command, Exit, Process, group_usage
from tests.supervisor.procs import gone, registry, run

# -- output ------------------------------------------------------------------------


async def test_its_output_and_its_errors_are_kept_as_lines_in_order(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, words = await run(nursery, "echo one; echo two >&2; printf three")
        await process.wait()
    assert list(process.lines) == words.lines == ["one", "two", "three"]
    assert process.last_lines(2) == ["two", "three"]


async def test_only_the_newest_lines_are_kept(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, words = await run(nursery, "seq 1 5000")
        await process.wait()
    assert len(words.lines) == 5000
    assert list(process.lines) == [str(n) for n in range(5001 - LINES, 5001)]


async def test_progress_drawn_with_carriage_returns_is_lines(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, words = await run(nursery, r"printf '10%%\r20%%\r\r\n30%%\r\n'; exec sleep 300")
        await words.starting("30%")
        # While it runs: nobody waits for a newline that does not come.
        assert list(process.lines) == ["10%", "20%", "30%"]
        await process.kill()


async def test_a_line_without_end_is_cut_and_memory_bounded(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, _ = await run(nursery, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last")
        await process.wait()
    assert max(len(line) for line in process.lines) == LINE_BYTES
    assert process.lines[-1] == "last"
    assert len(process.lines) <= LINES


async def test_what_is_no_utf_8_is_shown_as_such(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, _ = await run(nursery, r"printf 'a\377b\n'")
        await process.wait()
    assert list(process.lines) == ["a\ufffdb"]


# -- what it is given ----------------------------------------------------------------


async def test_it_has_a_session_of_its_own_and_nothing_to_read(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, words = await run(nursery, "cat; echo read; exec sleep 300")
        await words.starting("read")
        assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
        await process.kill()


async def test_it_gets_what_it_needs_of_the_environment_its_own_and_the_marker(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SIP_PASSWORD", "secret")
    of = registry()
    with trio.fail_after(10):
        process, words = await run(
            nursery, "pwd; env", of, env={"MINE": "here"}, cwd=tmp_path.resolve()
        )
        await process.wait()
    assert words.lines[0] == str(tmp_path.resolve())
    assert {"MINE=here", of.marker, f"PATH={os.environ['PATH']}"} <= set(words.lines)
    assert not any("SIP_PASSWORD" in line for line in words.lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_it_may_run_as_another_user_with_nothing_of_ours(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, words = await run(nursery, "id -un; id -Gn; exec sleep 300", user="nobody")
        await words.starting("nogroup")
        assert words.lines == ["nobody", "nogroup"]
        ended = await process.stop(grace=5.0)
    assert ended == Exit(-signal.SIGTERM, asked=True)


async def test_a_user_that_there_is_not_is_told(nursery: trio.Nursery) -> None:
    of = registry()
    with trio.fail_after(10), pytest.raises(KeyError, match="no-such-user"):
        await nursery.start(Process(Command(["true"], user="no-such-user"), of).run)
    assert of.groups == {}


async def test_a_program_that_is_not_there_is_an_os_error_and_leaves_nothing(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    of = registry()
    with trio.fail_after(10):
        for command in (
            Command(["/nonexistent/program"]),
            Command(["true"], cwd=Path("/nonexistent")),
            Command([str(tmp_path)]),
        ):
            with pytest.raises(OSError, match=r"No such file|Permission denied"):
                await nursery.start(Process(command, of).run)
    assert of.groups == {}


async def test_while_it_runs_its_group_is_known_and_no_longer(nursery: trio.Nursery) -> None:
    of = registry()
    with trio.fail_after(10):
        process, _ = await run(nursery, "exec sleep 300", of)
        assert of.groups == {process.pid: (process.started, "/test")}
        assert process.started > 0
        await process.kill()
    assert of.groups == {}


# -- its end ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "exited with status 0"),
        ("exit 3", "exited with status 3"),
        ("kill -SEGV $$", "ended by SIGSEGV"),
        ("kill -40 $$", "ended by signal 40"),
    ],
)
async def test_how_it_ended_is_said_in_words(
    nursery: trio.Nursery, script: str, words: str
) -> None:
    with trio.fail_after(10):
        process, _ = await run(nursery, script)
        ended = await process.wait()
    assert str(ended) == words
    assert not ended.asked


async def test_asked_to_stop_it_gets_term_and_that_it_was_asked_is_said(
    nursery: trio.Nursery,
) -> None:
    with trio.fail_after(10):
        process, _ = await run(nursery, "exec sleep 300")
        ended = await process.stop(grace=5.0)
        assert ended == Exit(-signal.SIGTERM, asked=True)
        assert str(ended) == "ended by SIGTERM as asked"
        # Again costs nothing and says the same.
        assert await process.stop(grace=5.0) == ended
        assert await process.kill() == ended


async def test_it_may_end_in_its_own_way_when_asked(nursery: trio.Nursery) -> None:
    with trio.fail_after(10):
        process, words = await run(
            nursery, "trap 'echo tidy; exit 4' INT; echo ready; while :; do sleep 0.05; done"
        )
        await words.starting("ready")
        ended = await process.stop(5.0, signal.SIGINT)
    assert ended == Exit(4, asked=True)
    assert process.lines[-1] == "tidy"


async def test_a_group_that_ignores_term_is_killed_after_the_grace_with_all_below(
    nursery: trio.Nursery,
) -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 300 & echo below $!; wait) & echo ready; wait"
    with trio.fail_after(10):
        process, words = await run(nursery, script)
        below = int(await words.starting("below"))
        ended = await process.stop(grace=0.3)
        assert ended == Exit(-signal.SIGKILL, asked=True)
        await gone(below)


async def test_what_a_leader_leaves_behind_is_killed_when_it_ends(nursery: trio.Nursery) -> None:
    script = "(trap '' TERM HUP; sleep 300 & echo below $!; wait) & sleep 0.05; exit 7"
    with trio.fail_after(10):
        process, words = await run(nursery, script)
        assert await process.wait() == Exit(7, asked=False)
        await gone(int(await words.starting("below")))


async def test_output_that_somebody_else_keeps_open_does_not_hold_its_end(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon of another session, still writing to our pipe."""
    monkeypatch.setattr(supervisor.process, "AFTERMATH", 0.2)
    with trio.fail_after(10):
        process, words = await run(nursery, "setsid sleep 300 & echo out $!; sleep 0.1; exit 0")
        assert await process.wait() == Exit(0, asked=False)
        out = int(await words.starting("out"))
        os.kill(out, signal.SIGKILL)
        await gone(out)


async def test_cancelled_it_kills_the_group_before_it_returns() -> None:
    of = registry()
    with trio.fail_after(10):
        async with trio.open_nursery() as inner:
            process, words = await run(inner, "trap '' TERM; sleep 300 & echo below $!; wait", of)
            below = int(await words.starting("below"))
            inner.cancel_scope.cancel()
        assert process.exit == Exit(-signal.SIGKILL, asked=False)
        await gone(below)
        await gone(process.pid)
    assert of.groups == {}


async def test_an_error_in_who_reads_its_lines_ends_it() -> None:
    def fails(_line: str) -> None:
        raise ValueError("cannot parse")

    process = Process(Command(["sh", "-c", "echo x; sleep 300"]), registry(), fails)
    with trio.fail_after(10), pytest.raises(ExceptionGroup) as caught:
        await process.run()
    assert caught.group_contains(ValueError, match="cannot parse")
    await gone(process.pid)


# -- what it uses ------------------------------------------------------------------------


async def test_what_a_group_uses_is_summed_over_its_processes(nursery: trio.Nursery) -> None:
    script = "sleep 300 & i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo ready; wait"
    with trio.fail_after(20):
        busy, words = await run(nursery, script)
        idle, _ = await run(nursery, "exec sleep 300")
        await words.starting("ready")
        usage = group_usage({busy.pid, idle.pid, 2**30})
        await busy.kill()
        await idle.kill()
    assert set(usage) == {busy.pid, idle.pid}
    assert usage[busy.pid].processes == 2
    assert usage[idle.pid].processes == 1
    assert usage[busy.pid].cpu_seconds > usage[idle.pid].cpu_seconds
    assert usage[busy.pid].memory_bytes > usage[idle.pid].memory_bytes > 10_000
