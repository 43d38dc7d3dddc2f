"""The encoder's argument lists.

Every recording is made as HLS segments, whatever was asked for: they play while they are written,
survive a kill at any moment, go on in another part after it, and become any other format at the
end without being encoded again (finish.py).
"""

from __future__ import annotations

from pathlib import Path

from actors.egress.request import Wanted

SEGMENT = 2  # seconds; what a kill can cost
PLAYLIST = "index.m3u8"
SNAPSHOT_RATE = 10  # frames a second that snapshots are chosen from


def mixed_input(video: Path, audio: Path | None, wanted: Wanted, fps: int) -> list[str]:
    """What comes from the mixer. Nothing has to be found out about it."""
    size = f"{wanted.video.width}x{wanted.video.height}"
    arguments = ["-thread_queue_size", "16", "-probesize", "32", "-analyzeduration", "0"]
    arguments += ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", size]
    arguments += ["-framerate", str(fps), "-i", f"file:{video}"]
    if audio is not None:
        arguments += ["-thread_queue_size", "256", "-probesize", "32", "-analyzeduration", "0"]
        arguments += ["-f", "s16le", "-ar", str(wanted.audio.sample_rate)]
        arguments += ["-ac", str(wanted.audio.channels), "-i", f"file:{audio}"]
    return arguments


# Sound that is grabbed comes later than the picture, and its clock trembles: silence before it, and
# no sample twice.
SMOOTH = ["-af", "aresample=async=1000"]


def arguments(
    inputs: list[str], wanted: Wanted, fps: int, folder: Path, offset: float, most: float | None
) -> list[str]:
    """ffmpeg's, to encode picture and sound to segments in a folder.

    `inputs` may end with options for the output, such as SMOOTH.
    `offset`: the seconds of the parts before this one. The clock of the segments goes on there.
    `most`: it ends by itself after so many seconds.
    """
    rate, video, audio = str(fps), wanted.video, wanted.audio
    bits = f"{video.bitrate}k"
    # Frames that x264 keeps back are lost by a kill: some tenths of a second, at any rate; with
    # threads that each have a frame, it would be more the more processors there are.
    ahead, between = min(fps * 3 // 10, 10), min(fps // 10, 3)
    return [
        "ffmpeg", "-v", "warning", "-nostats", "-y",
        "-progress", "pipe:1", "-stats_period", "1",
        *inputs,
        "-map", "0:v:0", "-map", "1:a:0",
        "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-r", rate,
        "-b:v", bits, "-maxrate", bits, "-bufsize", f"{video.bitrate * 2}k",
        "-rc-lookahead", str(ahead), "-bf", str(between),
        "-x264-params", "sliced-threads=1:sync-lookahead=0",
        # A segment begins with a key frame and there are no others: seconds by the clock.
        "-g", str(fps * SEGMENT), "-keyint_min", str(fps * SEGMENT), "-sc_threshold", "0",
        "-c:a", "aac", "-b:a", f"{audio.bitrate}k",
        "-ar", str(audio.sample_rate), "-ac", str(audio.channels),
        *_at_most(most),
        # Not the `hls` muxer: that one keeps a segment in memory until it is whole, and a kill
        # would cost it.
        "-f", "segment", "-segment_format", "mpegts", "-segment_time", str(SEGMENT),
        "-initial_offset", f"{offset:.6f}",
        "-segment_format_options", "flush_packets=1",
        # One stream cut in pieces: with a header each, players take a part's packets for damaged.
        "-individual_header_trailer", "0",
        "-segment_list", f"{folder}/{PLAYLIST}", "-segment_list_type", "m3u8",
        "-segment_list_size", "0", "-segment_list_flags", "+live", f"{folder}/%06d.ts",
    ]  # fmt: skip


def _at_most(seconds: float | None) -> list[str]:
    return [] if seconds is None else ["-t", f"{max(seconds, 0.1):.3f}"]


def snapshot_arguments(
    inputs: list[str], wanted: Wanted, stem: Path, first: int, most: float | None
) -> list[str]:
    """ffmpeg's, to write a picture each interval, the first at once, as `<stem>-<number>.jpg`.

    Chosen by the number of the picture and not by the distance to the one before: it never drifts.
    """
    assert wanted.interval_in_ms is not None
    every = wanted.interval_in_ms / 1000
    choose = f"select='gte(t+0.001\\,selected_n*{every:g})'"
    return [
        "ffmpeg", "-v", "warning", "-nostats", "-y",
        "-progress", "pipe:1", "-stats_period", "1",
        *inputs,
        "-map", "0:v:0", "-vf", choose, "-fps_mode", "passthrough",
        *_at_most(most),
        "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "3",
        "-f", "image2", "-start_number", str(first), "-atomic_writing", "1", f"{stem}-%06d.jpg",
    ]  # fmt: skip


def push_arguments(playlist: Path, url: str) -> list[str]:
    """ffmpeg's, to send a recording on as it grows. Apart from it: a far end cannot disturb it."""
    return [
        "ffmpeg", "-nostdin", "-v", "warning", "-nostats",
        "-re", "-live_start_index", "-1", "-i", f"{playlist}",
        "-c", "copy", "-rw_timeout", "10000000", "-f", "flv", url,
    ]  # fmt: skip
