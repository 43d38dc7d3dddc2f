"""A call's transcript, as text for people and as lines of JSON for programs. Pure."""

from __future__ import annotations

import msgspec

from actors.call.story import Story


def text(story: Story) -> str:
    """A line for each utterance: `[00:01:05] Caller: hello`."""
    lines = []
    for utterance in story.utterances:
        seconds = utterance.start // 1000
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        said = " ".join(utterance.text.split())
        lines.append(f"[{clock}] {utterance.speaker.capitalize()}: {said}\n")
    return "".join(lines)


def json_lines(story: Story) -> bytes:
    """An object for each utterance: speaker, start_ms, end_ms (or null), text."""
    return b"".join(
        msgspec.json.encode(
            {"speaker": u.speaker, "start_ms": u.start, "end_ms": u.end, "text": u.text}
        )
        + b"\n"
        for u in story.utterances
    )
