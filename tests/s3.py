"""A bucket for tests: moto's S3 server, in a process of its own.

It does not check signatures. What it has is looked at with boto3, not with our own code.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any

import boto3
import trio

from tests.appliance import ports

KEYS = {"access_key": "test-access", "secret_key": "test-secret-never-shown"}
UP = 40.0


class S3:
    """A server that can be away: `start` and `stop` it as often as needed; it then forgets all."""

    def __init__(self) -> None:
        self.port = ports()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """For `egress.upload`."""
        return {"endpoint": f"http://127.0.0.1:{self.port}", "bucket": "rec", **KEYS}

    @property
    def client(self) -> Any:
        """boto3's."""
        return boto3.client(
            "s3",
            endpoint_url=self.settings["endpoint"],
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="y",
        )

    async def start(self) -> None:
        """Until it answers and has the bucket."""
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with trio.fail_after(UP):
            while True:
                with suppress(OSError):
                    await (await trio.open_tcp_stream("127.0.0.1", self.port)).aclose()
                    break
                await trio.sleep(0.05)
        await trio.to_thread.run_sync(lambda: self.client.create_bucket(Bucket="rec"))

    def stop(self) -> None:
        """Away, with all it had."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _sizes(self) -> dict[str, int]:
        found = self.client.list_objects_v2(Bucket="rec").get("Contents", [])
        return {item["Key"]: item["Size"] for item in found}

    async def sizes(self) -> dict[str, int]:
        """Keys and sizes of all objects."""
        return await trio.to_thread.run_sync(self._sizes)
