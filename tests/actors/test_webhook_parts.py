"""Signatures, the choice of events, and what is made of headers: pure."""

from __future__ import annotations

import datetime

import msgspec
import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from actors.webhook.delivery_records import seconds_until
from actors.webhook.selection import Selection
from actors.webhook.sender import wait_of
from actors.webhook.signing import headers, sign
from config.webhooks import key
from supervisor.event import Event, timestamp


@given(
    st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3),
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=40),
    st.integers(0, 2**33),
    st.text(max_size=200),
)
def test_a_signature_is_what_the_library_makes(
    keys: list[bytes], id: str, when: int, text: str
) -> None:
    body = text.encode("utf-8", "replace")
    moment = datetime.datetime.fromtimestamp(when, datetime.UTC)
    theirs = [standardwebhooks.Webhook(k).sign(id, moment, body.decode()) for k in keys]
    assert sign(keys, id, when, body).split(" ") == theirs


def test_the_example_of_the_specification() -> None:
    """Its key, id and body, as several of that project's libraries have them in their tests."""
    known = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = headers([known], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def event(type: str = "thing.happened", subject: str = "thing/a") -> Event:
    return Event(1, "2026-01-01T00:00:00.000000Z", type, subject, msgspec.Raw(b"{}"))


@pytest.mark.parametrize(
    ("topics", "wanted"),
    [
        (["*"], True),
        (["thing"], True),
        (["thing.*"], True),
        (["thing/*"], True),
        (["thing.happened"], True),
        (["thing/a"], True),
        (["other", "thing/a"], True),
        (["thing.other"], False),
        (["thing/b"], False),
        (["other"], False),
    ],
)
def test_topics_are_those_of_ws(topics: list[str], wanted: bool) -> None:
    assert Selection(topics).wants(event()) is wanted


@pytest.mark.parametrize(
    ("topics", "wanted"),
    [
        (["*"], False),
        (["thing"], False),
        (["webhook"], True),
        (["webhook.*"], True),
        (["*", "webhook"], True),
        (["webhook.dead_letter"], True),
        (["webhook.gap"], False),
        (["webhook/hook"], True),
        (["webhook/other"], False),
        (["*", "webhook/other"], False),
    ],
)
def test_what_webhooks_tell_of_themselves_must_be_named(topics: list[str], wanted: bool) -> None:
    assert Selection(topics).wants(event("webhook.dead_letter", "webhook/hook")) is wanted


def test_nothing_is_once_unless_it_is_said() -> None:
    assert not Selection(["*"]).is_once(event())
    assert Selection(["*"], ["thing.happened"]).is_once(event())
    assert not Selection(["*"], ["thing.happened"]).is_once(event("thing.began"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("9" * 40, 999999999.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("Thu, 01 Jan 1970 00:03:00 GMT", 80.0),
        ("Thu, 01 Jan 1970 00:03:00 -0000", 80.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert wait_of(value, 100.0) == seconds


def test_a_stored_time_is_never_further_than_the_longest_wait() -> None:
    """A clock that was set back must not hold a delivery for a year."""
    now = datetime.datetime.now(datetime.UTC)
    year = datetime.timedelta(days=365)
    assert seconds_until("", 300) == 0
    assert seconds_until(timestamp(now - year), 300) == 0
    assert seconds_until(timestamp(now + year), 300) == 300
    assert 50 < seconds_until(timestamp(now + datetime.timedelta(seconds=60)), 300) <= 60
