"""How long things take: quantiles from a histogram of constant size."""

from __future__ import annotations


class Timings:
    """Durations in nanoseconds, counted in buckets an eighth of an octave wide or less."""

    __slots__ = ("_buckets", "count")

    def __init__(self) -> None:
        # Sparse: an idle actor's few messages fill few buckets. At most 8 · 64 of them.
        self._buckets: dict[int, int] = {}
        self.count = 0

    def add(self, nanoseconds: int) -> None:
        """Count one duration."""
        shift = nanoseconds.bit_length() - 4
        key = nanoseconds if shift <= 0 else (shift << 4) | ((nanoseconds >> shift) & 15)
        try:
            self._buckets[key] += 1
        except KeyError:
            self._buckets[key] = 1
        self.count += 1

    def quantile(self, q: float) -> float | None:
        """The duration in seconds that a share `q` of all did not exceed; None without any.

        Upper end of the bucket it falls in, so at most an eighth too large.
        """
        if not self.count:
            return None
        wanted = q * self.count
        seen = 0
        for key in sorted(self._buckets):
            seen += self._buckets[key]
            if seen >= wanted:
                shift = key >> 4
                top = key if key < 16 else ((key & 15) + 1) << shift
                return top / 1e9
        return None
