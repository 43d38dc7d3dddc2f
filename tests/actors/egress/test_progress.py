"""What an encoder says of its work, understood, added up and put right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.egress.progress import Progress, ProgressReader, add, sized

# As ffmpeg 5.1 writes it, spaces and all.
BLOCK = """\
frame=62
fps=30.98
stream_0_0_q=23.0
bitrate= 981.3kbits/s
total_size=245800
out_time_us=2003900
out_time_ms=2003900
out_time=00:00:02.003900
dup_frames=1
drop_frames=2
speed=   1x
progress=continue
"""
FIRST = """\
frame=0
fps=0.00
stream_0_0_q=0.0
bitrate=N/A
total_size=N/A
out_time_us=N/A
out_time_ms=N/A
out_time=N/A
dup_frames=0
drop_frames=0
speed=N/A
progress=continue
"""


def read(text: str) -> list[Progress]:
    reader = ProgressReader()
    return [p for p in map(reader.take, text.splitlines()) if p is not None]


def test_a_block_is_one_progress() -> None:
    assert read(BLOCK) == [
        Progress(
            frames=62,
            fps=30.98,
            seconds=2.0039,
            bitrate=981.3,
            bytes=245800,
            dropped=2,
            duplicated=1,
            speed=1.0,
        )
    ]


def test_what_is_not_known_yet_is_nought() -> None:
    assert read(FIRST) == [Progress()]


def test_blocks_do_not_mix() -> None:
    assert [p.frames for p in read(BLOCK + FIRST + BLOCK)] == [62, 0, 62]


def test_a_time_before_the_start_is_nought() -> None:
    assert read("out_time_us=-23220\nprogress=continue\n") == [Progress()]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "", "x", "0x10"])
@pytest.mark.parametrize("name", ["frame", "fps", "out_time_us", "total_size", "speed", "bitrate"])
def test_what_is_no_number_is_nought(name: str, value: str) -> None:
    (found,) = read(f"{name}={value}\nprogress=end\n")
    assert found == Progress()


def test_lines_that_are_no_progress_are_passed_over() -> None:
    assert [p.frames for p in read("hello\n" + BLOCK.replace("fps", "x y z\nfps"))] == [62]


@given(st.lists(st.text(max_size=30) | st.sampled_from(BLOCK.splitlines()), max_size=40))
def test_any_lines_are_taken(lines: list[str]) -> None:
    reader = ProgressReader()
    for line in lines:
        reader.take(line)


def test_a_block_without_an_end_does_not_fill_the_memory() -> None:
    reader = ProgressReader()
    for n in range(10_000):
        reader.take(f"name{n}=1")
    assert len(reader._block) < 100


def test_of_two_encoders_work_adds_up_and_time_does_not() -> None:
    one = Progress(10, 30.0, 2.0, 100.0, 1000, 1, 2, 1.0)
    other = Progress(20, 25.0, 3.0, 200.0, 2000, 3, 4, 0.9)
    assert add(one, other) == Progress(30, 30.0, 3.0, 300.0, 3000, 4, 6, 0.9)
    # One that has not begun has no speed.
    assert add(one, Progress()).speed == 1.0
    assert add(Progress(), other).speed == 0.9


def test_bytes_are_those_on_the_disk_and_the_rate_goes_by_them() -> None:
    first = sized(Progress(seconds=1.0), 125_000, Progress())
    assert (first.bytes, first.bitrate) == (125_000, 1000.0)
    second = sized(Progress(seconds=2.0), 375_000, first)
    assert second.bytes == 375_000
    assert 1000 < second.bitrate < 2000
    # Time stands still: so does the rate.
    assert sized(Progress(seconds=2.0), 375_000, second).bitrate == second.bitrate
