"""A uniform sample of a stream whose length is not known: reservoir sampling, with a seed (Vitter's algorithm R)."""

from __future__ import annotations

from random import Random
from typing import Generic, TypeVar

T = TypeVar("T")


class Sampler(Generic[T]):
    """A sample of `size` of the items that are offered, each as likely as any other.

    The same items in the same order with the same seed give the same sample. So what a dry run shows is what is taken,
    as long as nothing was parked or taken in between.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size = size
        self._random = Random(seed)
        self._kept: list[tuple[int, T]] = []
        self.offered = 0

    def offer(self, item: T) -> None:
        """Offer one more item."""
        at, self.offered = self.offered, self.offered + 1
        if at < self._size:
            self._kept.append((at, item))
        elif (instead := self._random.randrange(self.offered)) < self._size:
            self._kept[instead] = (at, item)

    @property
    def items(self) -> list[T]:
        """Return the sample, in the order in which it was offered."""
        return [item for _, item in sorted(self._kept, key=lambda entry: entry[0])]
