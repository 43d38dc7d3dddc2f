"""The egress section: the packaged one records at once, and what is wrong is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.egress.request import Kind, understand
from actors.egress.sources import SCHEMES, origins
from config.load import load
from tests.actors.egress.examples import NATIVE
from tests.config.files import loaded, problems


def channel(source: str) -> str:
    return f"egress:\n  channels:\n    room:\n      users:\n        a: {source}\n"


# -- the defaults ---------------------------------------------------------------------------


def test_the_contracts_example_has_its_sources() -> None:
    _, wanted = understand(NATIVE["cmd"], NATIVE["payload"])
    fields = dict.fromkeys(("app_id", "task_id", "access_token", "workerUid"), "x")
    found = origins(load(None).egress.channels, wanted, fields)
    assert [o.user for o in found] == ["user1", "user2"]


def test_times_are_those_of_the_decisions() -> None:
    egress = load(None).egress
    assert (egress.claim_timeout, egress.lease, egress.renew, egress.look_every) == (30, 45, 15, 5)
    assert egress.retries == 3


def test_every_kind_of_task_has_a_cost_and_a_limit() -> None:
    egress = load(None).egress
    assert set(egress.costs) == {kind.value for kind in Kind}
    for kind in Kind:
        assert getattr(egress.limits, kind.value) > 0


def test_pages_of_our_own_network_are_not_shown_and_nothing_is_uploaded() -> None:
    egress = load(None).egress
    assert not egress.page_private
    assert egress.upload is None


# -- a file of one's own ----------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_kind_of_source_can_be_configured(tmp_path: Path, scheme: str) -> None:
    config = loaded(tmp_path, channel(f'{{url: "{scheme}:x"}}'))
    assert config.egress.channels["room"].users["a"].url == f"{scheme}:x"
    # Beside the packaged one.
    assert "egress_test" in config.egress.channels


def test_the_packaged_channel_can_be_taken_away(tmp_path: Path) -> None:
    assert loaded(tmp_path, "egress: {channels: {egress_test: null}}").egress.channels == {}


def test_fields_of_an_address_are_filled_in_later(tmp_path: Path) -> None:
    fields = "{channel}{user}{app_id}{task_id}{access_token}{workerUid}"
    config = loaded(tmp_path, channel(f'{{url: "rtmp://h/{fields}", listen: true}}'))
    assert fields in config.egress.channels["room"].users["a"].url


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('{url: "ftp://x"}', "5: egress.channels.room.users.a.url: expected one of rtsp, rtsps,"),
        ('{url: "rtsp"}', "5: egress.channels.room.users.a.url: expected one of rtsp,"),
        ('{url: ""}', "5: egress.channels.room.users.a.url: expected one of rtsp,"),
        (
            '{url: "rtsp://{host}/x"}',
            "5: egress.channels.room.users.a.url: unknown field {host}; known: access_token,",
        ),
        (
            '{url: "file:/x", listen: true}',
            "5: egress.channels.room.users.a.listen: only RTSP, RTMP and SRT can be waited for",
        ),
        ("{}", "5: egress.channels.room.users.a: 'url' is missing"),
        ('{url: "test:x", lisen: true}', "5: egress.channels.room.users.a.lisen: unknown key;"),
        ('{url: "test:x", options: -an}', "5: egress.channels.room.users.a.options: expected a"),
    ],
)
def test_a_source_that_is_wrong(tmp_path: Path, source: str, line: str) -> None:
    (found,) = problems(tmp_path, channel(source))
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "egress:\n  channels:\n    room: {users: {}}\n",
            "3: egress.channels.room.users: expected at least one user",
        ),
        (
            "egress:\n  costs:\n    record: null\n",
            "2: egress.costs: expected a cost for `record`",
        ),
        (
            "egress:\n  costs:\n    movie: {cpu: 1, memory_mb: 1, disk_kb: 1}\n",
            "3: egress.costs.movie: expected one of: record, snapshot, page",
        ),
        (
            "egress:\n  renew: 30\n",
            "2: egress.renew: expected at most half of egress.lease",
        ),
        ("egress:\n  lease: 0\n  renew: 0.1\n", "2: egress.lease: expected a number above 0"),
        ("egress:\n  look_every: 0\n", "2: egress.look_every: expected a number above 0, got: 0"),
        ("egress:\n  gone_after: .nan\n", "2: egress.gone_after: expected a number above 0"),
        ("egress:\n  retries: -1\n", "2: egress.retries: expected a number of 0 or more, got: -1"),
        ("egress:\n  retries: 1.5\n", "2: egress.retries: expected a whole number, got: 1.5"),
        ("egress:\n  limits: {record: many}\n", "2: egress.limits.record: expected a whole number"),
        ("egress:\n  rtmp_hosts: all\n", "2: egress.rtmp_hosts: expected a list, got: 'all'"),
        ("egress:\n  channel: {}\n", "2: egress.channel: unknown key; did you mean 'channels'?"),
        ("egress:\n  upload: {}\n", "2: egress.upload: 'bucket' is missing"),
        (
            "egress:\n  upload: {bucket: b, endpoint: minio}\n",
            "2: egress.upload.endpoint: expected http://HOST[:PORT] or https://HOST[:PORT]",
        ),
        (
            "egress:\n  upload: {bucket: b, endpoint: 'http://[::1'}\n",
            "2: egress.upload.endpoint: expected http://HOST[:PORT]",
        ),
        (
            "egress:\n  upload: {bucket: b, endpoint: 'https://me:key@host'}\n",
            "2: egress.upload.endpoint: expected neither keys nor a query in it",
        ),
    ],
)
def test_one_thing_wrong(tmp_path: Path, text: str, line: str) -> None:
    found = problems(tmp_path, text)
    assert any(problem.startswith(line) for problem in found), found


@pytest.mark.parametrize(
    "text",
    [
        "limits: {record: 0, snapshot: 0, page: 0, tasks: 0, waiting: 0}",
        "capacity: {cpu: 0, memory_mb: 0, disk_kb: 0}",
        "disk_free_mb: 0",
        "retries: 0",
    ],
)
def test_nought_is_a_number_where_it_stands_for_none(tmp_path: Path, text: str) -> None:
    loaded(tmp_path, f"egress: {{{text}}}\n")
