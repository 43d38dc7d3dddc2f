"""Where each user is on the picture: pure arithmetic.

All numbers are even: a chroma sample covers two by two pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle of the picture, in pixels from its upper left corner."""

    user: str
    x: int
    y: int
    width: int
    height: int


def even(value: float) -> int:
    """The even number at or below."""
    return int(value) // 2 * 2


def grid(users: Sequence[str], width: int, height: int) -> list[Cell]:
    """`flat`: the smallest square grid that holds all; a row that is not full is centred."""
    if not users:
        return []
    columns = math.ceil(math.sqrt(len(users)))
    rows = math.ceil(len(users) / columns)
    wide, high = even(width / columns), even(height / rows)
    top = even((height - high * rows) / 2)
    cells = []
    for row in range(rows):
        here = users[row * columns : (row + 1) * columns]
        left = even((width - wide * len(here)) / 2)
        cells += [
            Cell(u, left + i * wide, top + row * high, wide, high) for i, u in enumerate(here)
        ]
    return cells


def spotlight(users: Sequence[str], chosen: str, width: int, height: int) -> list[Cell]:
    """`spotlight`: one large; the others in a column at the right, all of one size.

    The sizes depend on the number of users alone, so that another can be chosen while it runs.
    """
    others = [user for user in users if user != chosen]
    if not others:
        return [Cell(chosen, 0, 0, even(width), even(height))]
    # At least one sample of chroma, however thin the picture is.
    high = max(even(height / max(len(others), 4)), 2)
    wide = max(even(min(width / 4, high * width / height)), 2)
    large = even(width - wide)
    cells = [Cell(chosen, 0, 0, large, even(height))]
    top = even((height - high * len(others)) / 2)
    cells += [Cell(u, large, top + i * high, wide, high) for i, u in enumerate(others)]
    return cells


def sizes(cells: Sequence[Cell]) -> list[tuple[int, int]]:
    """The different sizes among them."""
    return sorted({(c.width, c.height) for c in cells}, reverse=True)
