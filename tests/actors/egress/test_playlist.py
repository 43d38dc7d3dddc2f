"""HLS playlists: what an encoder wrote of each part, joined in order."""

from __future__ import annotations

from pathlib import Path

from actors.egress.playlist import Segment, join, read, total


def part(folder: Path, number: int, *seconds: float) -> list[Segment]:
    """A part's segments, on the disk, with the playlist that its encoder wrote."""
    place = folder / "x.segments" / f"{number:04d}"
    place.mkdir(parents=True)
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:3"]
    for i, length in enumerate(seconds):
        (place / f"{i:06d}.ts").write_bytes(b"x")
        lines += [f"#EXTINF:{length:.6f},", f"{i:06d}.ts"]
    (place / "index.m3u8").write_text("\n".join(lines) + "\n")
    return read(place / "index.m3u8")


def test_a_part_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = part(tmp_path, 1, 2.0, 2.04, 0.5)
    assert [s.path.name for s in found] == ["000000.ts", "000001.ts", "000002.ts"]
    assert [s.seconds for s in found] == [2.0, 2.04, 0.5]
    assert total(found) == 4.54


def test_no_playlist_is_no_segments(tmp_path: Path) -> None:
    assert read(tmp_path / "index.m3u8") == []
    assert total([]) == 0


def test_a_segment_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    found = part(tmp_path, 1, 2.0, 2.0)
    found[0].path.unlink()
    assert [s.path.name for s in read(found[0].path.parent / "index.m3u8")] == ["000001.ts"]


def test_a_playlist_may_have_titles_and_end_marks(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(b"x")
    index = tmp_path / "index.m3u8"
    index.write_text("#EXTM3U\n\n#EXTINF:2.5,a title, with commas\na.ts\n#EXT-X-ENDLIST\n")
    assert [(s.path.name, s.seconds) for s in read(index)] == [("a.ts", 2.5)]


def test_parts_are_joined_with_a_discontinuity_between_two(tmp_path: Path) -> None:
    parts = [part(tmp_path, 1, 2.0, 2.0), [], part(tmp_path, 3, 3.2)]
    assert join(parts, tmp_path, ended=True).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:6",
        "#EXT-X-TARGETDURATION:4",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXTINF:2.000000,",
        "x.segments/0001/000000.ts",
        "#EXTINF:2.000000,",
        "x.segments/0001/000001.ts",
        "#EXT-X-DISCONTINUITY",
        "#EXTINF:3.200000,",
        "x.segments/0003/000000.ts",
        "#EXT-X-ENDLIST",
    ]


def test_a_playlist_that_grows_has_no_end(tmp_path: Path) -> None:
    found = join([part(tmp_path, 1, 2.0)], tmp_path, ended=False)
    assert "#EXT-X-PLAYLIST-TYPE:EVENT\n" in found
    assert "ENDLIST" not in found


def test_no_first_part_makes_no_discontinuity(tmp_path: Path) -> None:
    assert "DISCONTINUITY" not in join([[], part(tmp_path, 2, 2.0)], tmp_path, ended=True)
    assert join([], tmp_path, ended=True).endswith("#EXT-X-ENDLIST\n")


def test_what_is_joined_is_read_again(tmp_path: Path) -> None:
    parts = [part(tmp_path, 1, 2.0, 1.96), part(tmp_path, 2, 0.4)]
    index = tmp_path / "x.m3u8"
    index.write_text(join(parts, tmp_path, ended=True))
    assert read(index) == [segment for found in parts for segment in found]
