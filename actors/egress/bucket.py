"""An S3-compatible bucket. Needs the extra `s3` (boto3), whose calls block: they run in threads."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.model import Upload as Settings

# A file larger than one piece goes up in pieces, so that a restart need not begin anew; 5 MiB is
# the least that S3 takes.
PIECE = 8 * 1024 * 1024
CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60


class BucketError(Exception):
    """It did not take an object; the message says why, without secrets."""


class Bucket:
    """One bucket by its settings. Raises BucketError where those or boto3 are missing or wrong."""

    def __init__(self, settings: Settings) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise BucketError("uploads need boto3: install the extra `s3` (make s3)") from error
        self._settings = settings
        try:
            self._client: Any = boto3.client(
                "s3",
                endpoint_url=settings.endpoint or None,
                region_name=settings.region or None,
                aws_access_key_id=settings.access_key or None,
                aws_secret_access_key=settings.secret_key or None,
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT,
                    read_timeout=READ_TIMEOUT,
                    # Tries again are ours: with a backoff that a restart remembers.
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "path" if settings.path_style else "auto"},
                    proxies={},
                ),
            )
        except (ValueError, BotoCoreError) as error:
            raise BucketError(f"egress.upload: {error}") from error

    def key(self, task_id: str, name: str) -> str:
        """The object's key."""
        return f"{self._settings.prefix}{task_id}/{name}"

    def location(self, task_id: str, name: str) -> str:
        """Where it is, for people and programs."""
        return f"s3://{self._settings.bucket}/{self.key(task_id, name)}"

    def put(self, path: Path, key: str, upload_id: str, begun: Callable[[str], None]) -> None:
        """Upload a file; one in pieces goes on where `upload_id` was. Blocking.

        `begun` is told the id of an upload in pieces before its first piece goes.
        Raises BucketError, OSError.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if path.stat().st_size <= PIECE:
                kind = _kind(path)
                self._client.put_object(
                    Bucket=self._settings.bucket, Key=key, Body=path.read_bytes(), ContentType=kind
                )
            else:
                self._in_pieces(path, key, upload_id, begun)
        except (BotoCoreError, ClientError) as error:
            raise BucketError(str(error)) from error

    def _in_pieces(
        self, path: Path, key: str, upload_id: str, begun: Callable[[str], None]
    ) -> None:
        where = {"Bucket": self._settings.bucket, "Key": key}
        there = self._pieces_there(where, upload_id) if upload_id else None
        if there is None:
            begin = self._client.create_multipart_upload(**where, ContentType=_kind(path))
            upload_id, there = begin["UploadId"], {}
            begun(upload_id)
        pieces = []
        with path.open("rb") as file:
            number = 0
            while piece := file.read(PIECE):
                number += 1
                tag, size = there.get(number, ("", 0))
                if size != len(piece):
                    answer = self._client.upload_part(
                        **where, UploadId=upload_id, PartNumber=number, Body=piece
                    )
                    tag = answer["ETag"]
                pieces.append({"ETag": tag, "PartNumber": number})
        self._client.complete_multipart_upload(
            **where, UploadId=upload_id, MultipartUpload={"Parts": pieces}
        )

    def _pieces_there(
        self, where: dict[str, str], upload_id: str
    ) -> dict[int, tuple[str, int]] | None:
        """The pieces that an upload has; None when the bucket does not know it any more."""
        found: dict[int, tuple[str, int]] = {}
        marker = 0
        try:
            while True:
                page = self._client.list_parts(**where, UploadId=upload_id, PartNumberMarker=marker)
                for part in page.get("Parts", []):
                    found[part["PartNumber"]] = (part["ETag"], part["Size"])
                if not page.get("IsTruncated"):
                    return found
                marker = page["NextPartNumberMarker"]
        except self._client.exceptions.NoSuchUpload:
            return None


def _kind(path: Path) -> str:
    known = {".m3u8": "application/vnd.apple.mpegurl", ".ts": "video/mp2t"}
    return (
        known.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    )
