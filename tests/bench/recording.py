"""Recordings: how soon they begin, and what they cost, beside one ffmpeg started by hand.

The ffmpeg by hand makes the same picture of the same three sources, scaled, stacked, mixed and
encoded in one process: the least that it can cost. The appliance has a process for each source and
a mixer between, so that a source that stalls cannot stop the recording.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median

import psutil
import yaml

from tests.bench.kit import Options, Rounds, Row, Target, environment, folder
from tests.bench.servers import Server, appliance

TICKS = os.sysconf("SC_CLK_TCK")
USERS = ("u1", "u2", "u3")
PATIENCE = 60.0
LOOK = 0.002
# What starts has costs of its own, in seconds.
SETTLE = 4


def run(options: Options) -> list[Row]:
    """See the module."""
    starts = options.pick(1, 10)
    seconds = options.pick(2, 20)
    with folder() as place, _recorder(place) as server:
        ours = sorted(_first_frame(server, place, n) for n in range(starts))
        bare = sorted(_bare_first_frame(place) for _ in range(starts))
        rounds = Rounds(
            options.pick(1, 3),
            partial(_cost, server, seconds),
            partial(_bare_cost, place, seconds),
        )
        own = _own_share(server, options.pick(2, 20))
    hand = "ffmpeg started by hand"
    grid = "720p30 grid of 3"
    beside = "one ffmpeg with all sources"
    return [
        Row("request to first frame, median", median(ours), "s", hand, median(ours) / median(bare)),
        Row("request to first frame, p99", ours[-1], "s", hand, ours[-1] / bare[-1]),
        Row(grid, rounds.median(0), "cores", beside, rounds.ratio(0, 1), Target("<=", 1.05)),
        Row(
            "appliance itself with 4 recordings", own, "% of a core", "", None, Target("<", 3, "%")
        ),
    ]


@contextmanager
def _recorder(place: Path) -> Iterator[Server]:
    with appliance(place) as server:
        file = place / "switchboard.yaml"
        config = yaml.safe_load(file.read_text())
        config["egress"] = {
            "channels": {
                f"c{n}": {"users": {user: {"url": f"test:{user}"} for user in USERS}}
                for n in range(200)
            },
            "capacity": {"cpu": 1000},
            "limits": {"tasks": 400, "record": 400},
        }
        file.write_text(yaml.safe_dump(config))
        status, _, said = server.ask("POST", "/system/reload", {})
        assert status == 200, said
        yield server


def _start(server: Server, name: str, **payload: object) -> str:
    body = {"request_id": name, "cmd": "record", "payload": payload}
    status, _, said = server.ask("POST", "/egress/v1/bench/tasks", body)
    assert status == 200, said
    return str(yaml.safe_load(said)["task_id"])


def _state(server: Server, task_id: str) -> str:
    _, _, said = server.ask("GET", f"/egress/v1/bench/tasks/{task_id}")
    return str(yaml.safe_load(said)["state"])


def _until(server: Server, task_id: str, *states: str) -> None:
    end = time.monotonic() + PATIENCE
    while _state(server, task_id) not in states:
        assert time.monotonic() < end, f"the task is {_state(server, task_id)}"
        time.sleep(0.05)


def _stop(server: Server, task_id: str) -> None:
    server.ask("POST", f"/egress/v1/bench/tasks/{task_id}/stop", {"request_id": "s"})
    _until(server, task_id, "STOPPED", "FAILED", "TIMEOUT")


# -- how soon -------------------------------------------------------------------


def _written(pattern: Path) -> bool:
    return any(found.stat().st_size for found in pattern.parent.glob(pattern.name))


def _wait_for(pattern: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not _written(pattern):
        assert time.monotonic() < end, f"nothing was written to {pattern}"
        time.sleep(LOOK)


def _first_frame(server: Server, place: Path, number: int) -> float:
    began = time.perf_counter()
    task_id = _start(server, f"f{number}", channel="c0", filename_pattern="f")
    _wait_for(place / "state" / "egress" / task_id / "files" / "f.segments" / "0001" / "*.ts")
    took = time.perf_counter() - began
    _stop(server, task_id)
    return took


def _bare_first_frame(place: Path) -> float:
    target = place / "bare"
    target.mkdir()
    began = time.perf_counter()
    running = subprocess.Popen(_by_hand(target, 30), env=environment())
    _wait_for(target / "*.ts")
    took = time.perf_counter() - began
    running.kill()
    running.wait()
    shutil.rmtree(target)
    return took


# -- what it costs ------------------------------------------------------------------

SMALL = {"width": 160, "height": 90, "frameRate": 5, "bitrate": 100}


def _spent(pid: int) -> float:
    """Seconds of processor time of a process itself (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _working(pid: int) -> dict[int, float]:
    """Seconds of processor time of each process below one."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def _share(pid: int, seconds: int) -> float:
    """Cores that all below a process take, once they have begun."""
    time.sleep(SETTLE)
    before = _working(pid)
    time.sleep(seconds)
    after = _working(pid)
    assert before.keys() == after.keys(), "something was started again"
    return sum(after[one] - before[one] for one in before) / seconds


def _cost(server: Server, seconds: int) -> float:
    task_id = _start(server, f"g{time.monotonic_ns()}", channel="c1", filename_pattern="g")
    _until(server, task_id, "PROCESSING")
    share = _share(server.pid, seconds)
    _stop(server, task_id)
    return share


def _bare_cost(place: Path, seconds: int) -> float:
    target = place / "cost"
    target.mkdir()
    # A shell between us and it, as the appliance is between its client and the recording.
    command = shlex.join(_by_hand(target, seconds + 60))
    with subprocess.Popen(["sh", "-c", f"{command} & wait"], env=environment()) as running:
        try:
            return _share(running.pid, seconds)
        finally:
            for process in psutil.Process(running.pid).children():
                process.terminate()
            running.wait()
            shutil.rmtree(target)


def _own_share(server: Server, seconds: int) -> float:
    """Per cent of a core that the appliance's own process takes while four recordings run."""
    tasks = [
        _start(server, f"o{n}x{time.monotonic_ns() % 10**9}", channel=f"c{n + 2}", video=SMALL)
        for n in range(4)
    ]
    for task_id in tasks:
        _until(server, task_id, "PROCESSING")
    time.sleep(2)
    before = _spent(server.pid)
    time.sleep(seconds)
    share = (_spent(server.pid) - before) / seconds * 100
    for task_id in tasks:
        _stop(server, task_id)
    return share


def _by_hand(target: Path, seconds: int) -> list[str]:
    arguments = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    for pitch in (440, 550, 660):
        sound = f"sine=frequency={pitch}:beep_factor=2:sample_rate=48000[out1]"
        picture = "testsrc2=size=640x360:rate=30[out0]"
        arguments += ["-re", "-f", "lavfi", "-i", f"{picture};{sound}"]
    scale = "".join(f"[{n}:v]scale=640:360,setsar=1[s{n}];" for n in range(3))
    stack = "[s0][s1][s2]xstack=inputs=3:layout=0_0|w0_0|0_h0:fill=black[v]"
    mix = "[0:a][1:a][2:a]amix=inputs=3:normalize=0[a]"
    return [
        *arguments, "-filter_complex", f"{scale}{stack};{mix}", "-map", "[v]", "-map", "[a]",
        "-t", str(seconds), "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p",
        "-r", "30", "-b:v", "1000k", "-maxrate", "1000k", "-bufsize", "2000k", "-g", "60",
        "-keyint_min", "60", "-sc_threshold", "0", "-c:a", "aac", "-b:a", "128k", "-ar", "48000",
        "-ac", "2", "-f", "segment", "-segment_format", "mpegts", "-segment_time", "2",
        "-segment_format_options", "flush_packets=1", f"{target}/%06d.ts",
    ]  # fmt: skip
