"""Offline speech to text: `python -m actors.gateway.transcribe FILE`.

Prints the text on standard output and `progress N` on standard error. The engine is an optional
extra (`pip install switchboard[transcribe]`); without it this says so and ends with status 78.
"""

from __future__ import annotations

import subprocess
import sys

RATE = 16000
# Sound is given to the decoder in pieces of a quarter of a second.
PIECE = RATE // 4 * 2
# Voice activity ends an utterance after this many silent pieces.
SILENT_PIECES = 3
LOUD = 300


def main(arguments: list[str]) -> int:
    """Transcribe one file; the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m actors.gateway.transcribe FILE\n")
        return 2
    try:
        from pocketsphinx import Decoder
    except ImportError:
        sys.stderr.write("the engine is not installed: pip install 'switchboard[transcribe]'\n")
        return 78
    sound = _decode(arguments[0])
    decoder = Decoder(samprate=float(RATE), loglevel="FATAL")
    for start, end in _utterances(sound):
        decoder.start_utt()
        decoder.process_raw(sound[start:end], full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        if hypothesis is not None and hypothesis.hypstr:
            sys.stdout.write(hypothesis.hypstr + "\n")
            sys.stdout.flush()
        sys.stderr.write(f"progress {100 * end // max(len(sound), 1)}\n")
        sys.stderr.flush()
    sys.stderr.write("progress 100\n")
    return 0


def _decode(path: str) -> bytes:
    """The file's sound as 16-bit mono samples at the engine's rate."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", f"file:{path}"]
    command += ["-f", "s16le", "-ac", "1", "-ar", str(RATE), "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def _utterances(sound: bytes) -> list[tuple[int, int]]:
    """Stretches of speech, cut at silence: (start, end) in bytes."""
    found: list[tuple[int, int]] = []
    start: int | None = None
    silent = 0
    for at in range(0, len(sound), PIECE):
        piece = memoryview(sound[at : at + PIECE][: (len(sound) - at) // 2 * 2]).cast("h")
        loud = max(map(abs, piece), default=0) > LOUD
        if loud:
            start = max(at - PIECE, 0) if start is None else start
            silent = 0
        elif start is not None:
            silent += 1
            if silent >= SILENT_PIECES:
                found.append((start, at))
                start = None
    if start is not None:
        found.append((start, len(sound)))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
