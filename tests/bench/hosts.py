"""Processes to measure: a bare application on the same Hypercorn, and the appliance with a burst.

`python -m tests.bench.hosts bare PORT ANSWER` answers GET with the status, headers and body in the
file ANSWER. `... appliance --config FILE` is main.Switchboard; on SIGUSR1 it tells of a burst of
events.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

BURST = 200


def event(number: int) -> dict[str, Any]:
    """The data of an event: about what a gateway's call tells."""
    return {"number": number, "peer": "sip:alice@192.0.2.17:5060", "direction": "incoming"}


# -- the same Hypercorn, and nothing else -----------------------------------------


def bare(port: int, answer: str) -> None:
    """A bare ASGI application on Hypercorn's trio worker."""
    import trio
    from hypercorn.config import Config
    from hypercorn.trio import serve

    status, headers, body = read_answer(answer)
    raw = [(name.encode(), value.encode()) for name, value in headers]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                await send({"type": f"{(await receive())['type']}.complete"})
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.include_server_header = False
    config.keep_alive_max_requests = 1_000_000_000
    config.errorlog = config.accesslog = None
    trio.run(serve, application, config)


def read_answer(file: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body that were kept for the others to give."""
    status, headers, body = json.loads(Path(file).read_text())
    return status, headers, body.encode()


# -- the appliance ----------------------------------------------------------------


def appliance(file: Path) -> None:
    """main.Switchboard as `serve` runs it; SIGUSR1 writes a burst of events in one transaction."""
    import trio

    from config.load import load
    from main import Switchboard
    from supervisor import log as logs
    from supervisor.transaction import Transaction

    def burst(tx: Transaction) -> None:
        for number in range(BURST):
            tx.emit("bench.tick", "bench/burst", event(number))

    async def serve() -> None:
        config = load(file)
        logs.configure(config.log.level)
        board = Switchboard(config, lambda: load(file))
        await board.prepare()

        async def listen() -> None:
            with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGTERM) as received:
                async for number in received:
                    if number == signal.SIGTERM:
                        board.stop("measured")
                        return
                    await board.store.write(burst)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await board.run(lambda: None)
        board.close()

    trio.run(serve)


def main() -> None:
    """By name."""
    match sys.argv[1:]:
        case ["bare", port, answer]:
            bare(int(port), answer)
        case ["appliance", "--config", file]:
            appliance(Path(file))


if __name__ == "__main__":
    main()
