"""What tasks make goes to a bucket, by a whole appliance: moto's S3 server is the other side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.appliance import Appliance, running
from tests.flows.kit import Json
from tests.s3 import KEYS, S3

TASKS = "/egress/v1/app/tasks"
SMALL = {"width": 160, "height": 90, "frameRate": 10, "bitrate": 100}
WITHIN = 40.0


@pytest.fixture
async def s3() -> AsyncIterator[S3]:
    server = S3()
    await server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def appliance(tmp_path: Path, **upload: Any) -> AsyncIterator[Appliance]:
    """One that uploads, and looks often."""
    config = {"egress": {"upload": upload, "progress_every": 0.5}}
    async with running(tmp_path, config) as it:
        yield it


async def record(it: Appliance, **payload: Any) -> str:
    """Record the test channel for a moment; the task, once it has ended."""
    wanted = {"channel": "egress_test", "users": ["user1"], "video": SMALL, "max_duration": 3}
    body = {"request_id": "r1", "cmd": "record", "payload": {**wanted, **payload}}
    async with it.client() as client:
        answer = await client.post(TASKS, json=body)
        assert answer.status_code == 200, answer.text
    return str(answer.json()["task_id"])


async def task(it: Appliance, task_id: str) -> Json:
    """As it is now."""
    async with it.client() as client:
        answer = await client.get(f"{TASKS}/{task_id}")
    found: Json = answer.json()
    return found


async def until_files(it: Appliance, task_id: str, state: str) -> list[Json]:
    """Wait until the task has ended and all its files are in a state."""
    async with it.ws(f"since=0&topics=egress/{task_id}") as events:
        with trio.fail_after(WITHIN):
            while True:
                found = await task(it, task_id)
                files: list[Json] = found["files"]
                if found["completed_at"] and files and {f["state"] for f in files} == {state}:
                    assert found["state"] == "STOPPED"
                    return files
                with trio.move_on_after(1.0):
                    await events.get_message()


async def test_files_are_there_whole_and_the_status_says_where(tmp_path: Path, s3: S3) -> None:
    async with appliance(tmp_path, **s3.settings, prefix="box1/") as it:
        task_id = await record(it, format=["hls", "mp4"], filename_pattern="x")
        files = await until_files(it, task_id, "uploaded")
        assert {f["name"]: f["location"] for f in files} == {
            "x.m3u8": f"s3://rec/box1/{task_id}/x.m3u8",
            "x.mp4": f"s3://rec/box1/{task_id}/x.mp4",
        }
        there = await s3.sizes()
        here = it.folder / "egress" / task_id / "files"
        wanted = {p for p in here.rglob("*") if p.is_file() and p.name != "index.m3u8"}
        assert there == {
            f"box1/{task_id}/{p.relative_to(here).as_posix()}": p.stat().st_size for p in wanted
        }
        assert sum(1 for key in there if key.endswith(".ts")) >= 2
        assert KEYS["secret_key"] not in it.log.read_text()


async def test_what_was_uploaded_is_deleted_here_where_that_is_wanted(
    tmp_path: Path, s3: S3
) -> None:
    async with appliance(tmp_path, **s3.settings, keep_local=False) as it:
        task_id = await record(it, format=["hls", "mp4"], filename_pattern="x")
        await until_files(it, task_id, "remote")
        here = it.folder / "egress" / task_id / "files"
        assert [p for p in here.rglob("*") if p.is_file()] == []
        assert len(await s3.sizes()) >= 4
        async with it.client() as client:
            answer = await client.get(f"{TASKS}/{task_id}/files/x.mp4")
        assert answer.status_code == 404
        assert f"s3://rec/{task_id}/x.mp4" in answer.json()["error"]


async def test_segments_go_while_it_records(tmp_path: Path, s3: S3) -> None:
    async with appliance(tmp_path, **s3.settings) as it:
        task_id = await record(it, format="hls", filename_pattern="x", max_duration=60)
        with trio.fail_after(WITHIN):
            while not await s3.sizes():
                await trio.sleep(0.1)
        assert (await task(it, task_id))["state"] == "PROCESSING"
        assert not any(key.endswith(".m3u8") for key in await s3.sizes())
        async with it.client() as client:
            await client.post(f"{TASKS}/{task_id}/stop", json={"request_id": "s"})
        await until_files(it, task_id, "uploaded")
        assert f"{task_id}/x.m3u8" in await s3.sizes()


async def test_a_bucket_that_is_away_is_tried_again_also_by_the_next_start(
    tmp_path: Path, s3: S3
) -> None:
    s3.stop()
    async with appliance(tmp_path, **s3.settings) as it:
        task_id = await record(it, format="mp4", filename_pattern="x")
        await until_files(it, task_id, "complete")
        await it.kill9()
        await s3.start()
        await it.start()
        await until_files(it, task_id, "uploaded")
        assert list(await s3.sizes()) == [f"{task_id}/x.mp4"]


async def test_a_large_file_goes_on_where_it_was(tmp_path: Path, s3: S3) -> None:
    """The pieces that are there already do not go again: their tags stay as they were."""
    from actors.egress.bucket import PIECE, Bucket
    from config.model import Upload

    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(range(256)) * (PIECE // 128))  # two pieces
    large.write_bytes(large.read_bytes() + b"the rest")
    bucket = Bucket(Upload(**s3.settings))
    begun = s3.client.create_multipart_upload(Bucket="rec", Key="k")["UploadId"]
    first = large.read_bytes()[:PIECE]
    s3.client.upload_part(Bucket="rec", Key="k", UploadId=begun, PartNumber=1, Body=first)
    told: list[str] = []
    await trio.to_thread.run_sync(bucket.put, large, "k", begun, told.append)
    assert told == []
    assert s3.client.get_object(Bucket="rec", Key="k")["Body"].read() == large.read_bytes()
    await trio.to_thread.run_sync(bucket.put, large, "other", "an-id-it-does-not-know", told.append)
    assert len(told) == 1
    assert s3.client.head_object(Bucket="rec", Key="other")["ContentLength"] == large.stat().st_size


async def test_a_bucket_that_is_not_there_yet_is_tried_until_it_is(tmp_path: Path, s3: S3) -> None:
    settings = {**s3.settings, "bucket": "another"}
    async with appliance(tmp_path, **settings) as it, it.client() as client:
        task_id = await record(it, format="mp4", filename_pattern="x")
        await until_files(it, task_id, "complete")
        again = await client.post(f"{TASKS}/{task_id}/upload")
        assert again.json() == {"task_id": task_id, "objects": 0}
        s3.client.create_bucket(Bucket="another")
        await until_files(it, task_id, "uploaded")
