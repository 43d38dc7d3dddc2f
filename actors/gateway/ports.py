"""Ports of gateways: a slot is a set of ports in each of the configured ranges."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from config.model import Ports
from supervisor.errors import Rejected


@dataclass(frozen=True, slots=True)
class Assigned:
    """The ports of one slot: SIP (and its TLS port after it), control, RTP from first to last."""

    sip: int
    control: int
    rtp_first: int
    rtp_last: int


def assigned(ports: Ports, slot: int) -> Assigned:
    """The ports of a slot."""
    rtp = ports.rtp.first + slot * ports.rtp_per_gateway
    return Assigned(
        sip=ports.sip.first + 2 * slot,
        control=ports.control.first + slot,
        rtp_first=rtp,
        rtp_last=rtp + ports.rtp_per_gateway - 1,
    )


def slots(ports: Ports) -> int:
    """How many slots the ranges hold."""
    return min(
        (ports.sip.last - ports.sip.first + 1) // 2,
        ports.control.last - ports.control.first + 1,
        (ports.rtp.last - ports.rtp.first + 1) // ports.rtp_per_gateway,
    )


class Slots:
    """Which gateway has which slot. The router's; the rows of live gateways are its memory.

    A gateway keeps its slot for as long as it has an actor, so that nothing that still ends can
    meet something that begins on the same ports.
    """

    def __init__(self, ports: Ports, free: Callable[[Assigned], bool]) -> None:
        self._ports = ports
        self._free = free
        self._of: dict[str, int] = {}
        self._used: set[int] = set()
        self._next = 0

    def hold(self, gw_id: str, slot: int) -> None:
        """A gateway has a slot since before."""
        self._of[gw_id] = slot
        self._used.add(slot)

    def take(self, gw_id: str, instead: bool = False) -> int:
        """The slot it has (unless it wants another `instead`), or a free one.

        Free is what nobody has and whose ports nobody else uses. Goes round, so that a slot given
        back rests before it is given again. Raises Rejected `no_ports`.
        """
        held = self._of.get(gw_id)
        if held is not None and not instead:
            return held
        count = slots(self._ports)
        for offset in range(count):
            slot = (self._next + offset) % count
            if slot not in self._used and self._free(assigned(self._ports, slot)):
                self._next = slot + 1
                self.give_back(gw_id)
                self.hold(gw_id, slot)
                return slot
        raise Rejected("no_ports", f"all {count} sets of gateway ports are in use")

    def give_back(self, gw_id: str) -> None:
        """The gateway needs its slot no more. One that has none is no error."""
        slot = self._of.pop(gw_id, None)
        if slot is not None:
            self._used.discard(slot)

    def configure(self, ports: Ports) -> None:
        """Other ranges, for slots taken from now on."""
        self._ports = ports


def probe(address: str) -> Callable[[Assigned], bool]:
    """A look whether the ports of a slot can be bound here now."""

    def free(ports: Assigned) -> bool:
        wanted = [
            (ports.sip, socket.SOCK_DGRAM),
            (ports.sip, socket.SOCK_STREAM),
            (ports.sip + 1, socket.SOCK_STREAM),
            (ports.control, socket.SOCK_STREAM),
            (ports.rtp_first, socket.SOCK_DGRAM),
            (ports.rtp_first + 1, socket.SOCK_DGRAM),
        ]
        return all(_bindable(address, port, kind) for port, kind in wanted)

    return free


def _bindable(address: str, port: int, kind: socket.SocketKind) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as attempt:
        if kind is socket.SOCK_STREAM:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError:
            return False
    return True
