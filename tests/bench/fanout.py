"""A burst of 200 events to 50 WebSocket subscribers: deliveries a second.

The appliance commits the burst to its log and each subscriber reads the log, one event in a frame
and with `batch=1`. Beside it: FastAPI on uvicorn sending each event to each socket, without a log.
A delivery is an event that has arrived at a subscriber, in whatever frame.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from statistics import median

from tests.bench.hosts import BURST
from tests.bench.kit import Options, Rounds, Row, Target, folder, fresh
from tests.bench.servers import Server, appliance, host

SUBSCRIBERS = 50


def run(options: Options) -> list[Row]:
    """See the module."""
    bursts = options.pick(1, 5)
    with ExitStack() as stack:
        place = stack.enter_context(folder())
        script = ["-m", "tests.bench.hosts", "appliance"]
        ours = stack.enter_context(appliance(place, script=script))
        other = stack.enter_context(host("rivals", "broadcast"))
        rounds = Rounds(
            options.pick(1, 5),
            partial(_burst, ours, "/ws?topics=bench", bursts),
            partial(_burst, ours, "/ws?topics=bench&batch=1", bursts),
            partial(_burst, other, "/ws", bursts),
        )
    against = "FastAPI on uvicorn, a frame each"
    what = f"{BURST} events to {SUBSCRIBERS} /ws subscribers"
    return [
        Row(f"{what}, a frame each", rounds.median(0), "event/s", against, rounds.ratio(0, 2)),
        Row(
            f"{what}, batch=1",
            rounds.median(1),
            "event/s",
            against,
            rounds.ratio(1, 2),
            Target(">", 1),
        ),
    ]


def _burst(server: Server, path: str, bursts: int) -> float:
    rates: list[float] = fresh(
        "load:subscribe",
        server.port,
        path,
        server.authorization,
        SUBSCRIBERS,
        server.pid,
        BURST,
        bursts,
    )
    return median(rates)
