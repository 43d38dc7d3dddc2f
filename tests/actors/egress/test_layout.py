"""Where each user is on the picture: inside, apart from the others, and never of odd size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.egress.layout import Cell, even, grid, sizes, spotlight
from actors.egress.request import MAX_USERS

NUMBERS = range(1, MAX_USERS + 1)


def users(count: int) -> list[str]:
    return [f"user{n}" for n in range(count)]


def check(cells: list[Cell], names: list[str], width: int, height: int) -> None:
    """What holds of every layout."""
    assert [c.user for c in cells] == names
    for cell in cells:
        assert 0 <= cell.x <= cell.x + cell.width <= width, cell
        assert 0 <= cell.y <= cell.y + cell.height <= height, cell
        assert cell.width > 0, cell
        assert cell.height > 0, cell
        assert not any(n % 2 for n in (cell.x, cell.y, cell.width, cell.height)), cell
    for a, b in itertools.combinations(cells, 2):
        beside = a.x + a.width <= b.x or b.x + b.width <= a.x
        above = a.y + a.height <= b.y or b.y + b.height <= a.y
        assert beside or above, (a, b)


pictures = st.tuples(
    st.integers(32, 1920).map(lambda n: n * 2), st.integers(32, 1080).map(lambda n: n * 2)
)
counts = st.integers(1, MAX_USERS)


@given(counts, pictures)
def test_a_grid_holds_everybody_apart(count: int, size: tuple[int, int]) -> None:
    names = users(count)
    cells = grid(names, *size)
    check(cells, names, *size)
    assert len(sizes(cells)) == 1


@given(counts, st.integers(0, MAX_USERS - 1), pictures)
def test_a_spotlight_holds_everybody_apart(count: int, at: int, size: tuple[int, int]) -> None:
    names = users(count)
    chosen = names[at % count]
    cells = spotlight(names, chosen, *size)
    check(cells, [chosen, *(n for n in names if n != chosen)], *size)
    # The chosen one is the largest, the others are alike.
    assert len(sizes(cells[1:])) <= 1
    assert cells[0].width * cells[0].height == max(c.width * c.height for c in cells)


@pytest.mark.parametrize(("width", "height"), [(64, 2160), (3840, 64), (64, 64), (64, 70)])
@pytest.mark.parametrize("count", NUMBERS)
def test_the_thinnest_pictures_have_room_for_all(count: int, width: int, height: int) -> None:
    names = users(count)
    check(grid(names, width, height), names, width, height)
    check(spotlight(names, names[0], width, height), names, width, height)


def test_a_grid_grows_with_its_users() -> None:
    shape = {n: sizes(grid(users(n), 1280, 720)) for n in NUMBERS}
    assert shape[1] == [(1280, 720)]
    assert shape[2] == [(640, 720)]
    assert shape[3] == shape[4] == [(640, 360)]
    assert shape[5] == shape[6] == [(426, 360)]
    assert shape[7] == shape[9] == [(426, 240)]
    assert shape[16] == [(320, 180)]
    assert shape[25] == [(256, 144)]
    areas = [w * h for n in NUMBERS for w, h in shape[n]]
    assert areas == sorted(areas, reverse=True)


def test_a_row_that_is_not_full_is_in_the_middle() -> None:
    *above, last = grid(users(3), 1280, 720)
    assert [(c.x, c.y) for c in above] == [(0, 0), (640, 0)]
    assert (last.x, last.y) == (320, 360)


def test_nobody_is_no_cell() -> None:
    assert grid([], 1280, 720) == []
    assert sizes([]) == []


@pytest.mark.parametrize("count", NUMBERS)
def test_the_sizes_of_a_spotlight_depend_on_the_number_alone(count: int) -> None:
    """Another user can be chosen while the sources go on at the sizes they have."""
    names = users(count)
    assert len({tuple(sizes(spotlight(names, chosen, 1280, 720))) for chosen in names}) == 1


def test_one_alone_in_the_spotlight_fills_the_picture() -> None:
    assert spotlight(["a"], "a", 1280, 720) == [Cell("a", 0, 0, 1280, 720)]


@pytest.mark.parametrize(("value", "found"), [(0, 0), (1, 0), (2, 2), (3.99, 2), (426.67, 426)])
def test_even_is_at_or_below(value: float, found: int) -> None:
    assert even(value) == found
