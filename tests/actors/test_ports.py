"""Ports: a slot is a set of ports, held by one gateway at a time, and never one that is in use."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.ports import Assigned, Slots, assigned, probe, slots
from config.model import PortRange, Ports
from supervisor.errors import Rejected
from tests.appliance import ports as unused


def ranges(count: int, rtp_per_gateway: int = 10) -> Ports:
    """Room for just so many."""
    return Ports(
        sip=PortRange(first=6000, last=6000 + 2 * count - 1),
        control=PortRange(first=7000, last=7000 + count - 1),
        rtp=PortRange(first=8000, last=8000 + rtp_per_gateway * count - 1),
        rtp_per_gateway=rtp_per_gateway,
    )


def all_free(_ports: Assigned) -> bool:
    return True


def test_the_ports_of_a_slot() -> None:
    assert assigned(ranges(3), 0) == Assigned(6000, 7000, 8000, 8009)
    assert assigned(ranges(3), 2) == Assigned(6004, 7002, 8020, 8029)


@given(st.integers(1, 40), st.integers(4, 30))
def test_no_two_slots_share_a_port_and_none_leaves_its_range(count: int, per: int) -> None:
    ports = ranges(count, per)
    assert slots(ports) == count
    seen: set[int] = set()
    for slot in range(count):
        a = assigned(ports, slot)
        mine = {a.sip, a.sip + 1, a.control, *range(a.rtp_first, a.rtp_last + 1)}
        assert not mine & seen
        seen |= mine
        assert a.sip + 1 <= ports.sip.last
        assert a.control <= ports.control.last
        assert a.rtp_last <= ports.rtp.last


def test_the_smallest_range_says_how_many() -> None:
    narrow = Ports(
        sip=PortRange(first=6000, last=6010),  # five pairs and one left over
        control=PortRange(first=7000, last=7099),
        rtp=PortRange(first=8000, last=9999),
        rtp_per_gateway=20,
    )
    assert slots(narrow) == 5


def test_a_gateway_keeps_its_slot() -> None:
    held = Slots(ranges(3), all_free)
    assert held.take("a") == held.take("a") == 0
    assert held.take("b") == 1


def test_all_in_use_is_said_and_one_given_back_is_given_again() -> None:
    held = Slots(ranges(2), all_free)
    held.take("a")
    held.take("b")
    with pytest.raises(Rejected, match="all 2 sets") as refused:
        held.take("c")
    assert refused.value.code == "no_ports"
    held.give_back("a")
    assert held.take("c") == 0


def test_a_slot_given_back_rests_before_it_is_given_again() -> None:
    held = Slots(ranges(3), all_free)
    held.take("a")
    held.give_back("a")
    assert [held.take(g) for g in "bcd"] == [1, 2, 0]


def test_what_somebody_else_uses_is_passed_over() -> None:
    held = Slots(ranges(3), lambda ports: ports.sip != 6000)
    assert held.take("a") == 1


def test_another_slot_instead_gives_the_first_back() -> None:
    held = Slots(ranges(2), all_free)
    assert held.take("a") == 0
    assert held.take("a", instead=True) == 1
    assert held.take("b") == 0


def test_no_other_slot_leaves_the_one_it_has() -> None:
    held = Slots(ranges(1), all_free)
    held.take("a")
    with pytest.raises(Rejected):
        held.take("a", instead=True)
    assert held.take("a") == 0


def test_a_slot_held_since_before_is_nobody_elses() -> None:
    held = Slots(ranges(2), all_free)
    held.hold("old", 0)
    assert held.take("new") == 1


def test_giving_back_what_one_does_not_have_is_no_error() -> None:
    slots_ = Slots(ranges(1), all_free)
    slots_.take("one")
    slots_.give_back("nobody")
    with pytest.raises(Rejected):  # the only slot is still held
        slots_.take("two")


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["take", "move", "give"]))))
def test_no_slot_is_ever_held_twice(steps: list[tuple[str, str]]) -> None:
    slots_, mine = Slots(ranges(4), all_free), dict[str, int]()
    for gw_id, what in steps:
        if what == "give":
            slots_.give_back(gw_id)
            mine.pop(gw_id, None)
            continue
        try:
            mine[gw_id] = slots_.take(gw_id, instead=what == "move")
        except Rejected:
            assert len(mine) == 4
        assert len(set(mine.values())) == len(mine)


@pytest.mark.parametrize(
    ("offset", "kind"),
    [
        (0, socket.SOCK_DGRAM),
        (0, socket.SOCK_STREAM),
        (1, socket.SOCK_STREAM),
        (2, socket.SOCK_STREAM),
        (3, socket.SOCK_DGRAM),
        (4, socket.SOCK_DGRAM),
    ],
    ids=["sip udp", "sip tcp", "sip tls", "control", "rtp", "rtcp"],
)
def test_the_probe_sees_a_busy_port(offset: int, kind: socket.SocketKind) -> None:
    first = unused(5)
    ports = Assigned(sip=first, control=first + 2, rtp_first=first + 3, rtp_last=first + 9)
    free = probe("127.0.0.1")
    with socket.socket(socket.AF_INET, kind) as busy:
        busy.bind(("127.0.0.1", first + offset))
        if kind is socket.SOCK_STREAM:
            busy.listen()
        assert not free(ports)
    assert free(ports)
