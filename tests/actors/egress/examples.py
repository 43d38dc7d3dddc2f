"""The example requests of contracts/egress.md as they stand, without their comments."""

from __future__ import annotations

from typing import Any

NATIVE: dict[str, Any] = {
    "request_id": "m2d3k03l",
    "cmd": "record",
    "payload": {
        "layout": "flat",
        "channel": "egress_test",
        "access_token": "007eJxt9VMp+//+i9SOE",
        "workerUid": 42,
        "users": ["user1", "user2"],
        "filename_pattern": "file_output",
        "format": "hls",
        "video": {"width": 1280, "height": 720, "frameRate": 30, "bitrate": 1000},
        "audio": {"sampleRate": 48000, "channels": 2, "bitrate": 128},
    },
}
WEB: dict[str, Any] = {
    "request_id": "m2d3kw3l",
    "cmd": "record",
    "payload": {
        "layout": "freestyle",
        "url": "http://your_freestyle_canvas.good.example",
        "filename_pattern": "file_output",
        "webGL": False,
        "format": "hls",
        "video": {"width": 1280, "height": 720, "frameRate": 30, "bitrate": 1000},
        "audio": {"sampleRate": 48000, "channels": 2, "bitrate": 128},
    },
}
STOP: dict[str, Any] = {"request_id": "234drd3"}
STATUS: dict[str, Any] = {"request_id": "1yu323k5"}


def snapshot(**more: Any) -> dict[str, Any]:
    """The payload of a snapshot: DECISIONS.md says what it needs beyond a recording."""
    return {"channel": "egress_test", "interval_in_ms": 1000, **more}
