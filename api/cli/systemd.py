"""systemd's readiness and watchdog protocol (sd_notify(3)): datagrams to $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket

import trio

from supervisor.log import logger


def notify(state: str) -> bool:
    """Send a state, such as `READY=1`; False when nobody wants it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), target)
        except OSError as error:
            logger.warning("systemd_not_told", state=state, error=str(error))
            return False
    return True


async def keep_alive() -> None:
    """Tell the watchdog, twice in each of its periods, that the loop turns."""
    period = os.environ.get("WATCHDOG_USEC", "")
    if not period.isdigit() or int(period) == 0:
        return
    while True:
        notify("WATCHDOG=1")
        await trio.sleep(int(period) / 2_000_000)
