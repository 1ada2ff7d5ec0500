"""Messages that were seen before, at eight bytes each: a million of them must not fill the memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from heapq import merge

_RUN = 65_536  #: digests that are sorted at once
_BYTES = 8  #: of a digest; two of a million messages are taken for one in one of thirty million readings


class DigestMultiset:
    """A multiset of digests: `add` while reading, `recall` before reading again, then `take` each message that was
    seen.
    """

    def __init__(self) -> None:
        self._sorted = array("Q")
        self._taken = array("L")  # at the first of several equal ones: how many were taken
        self._new = array("Q")

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def add(self, digest: bytes) -> None:
        """Add a message, which can be taken after the next `recall`."""
        self._new.append(int.from_bytes(digest[:_BYTES], "big"))

    def recall(self) -> None:
        """Begin another reading: every message that was added can be taken once."""
        if self._new:
            # a list of all of them would hold an object for each
            runs = [array("Q", sorted(self._new[at : at + _RUN])) for at in range(0, len(self._new), _RUN)]
            self._new = array("Q")
            self._sorted = array("Q", merge(self._sorted, *runs))
        self._taken = array("L", bytes(len(self._sorted) * array("L").itemsize))

    def __contains__(self, digest: bytes) -> bool:
        """Tell whether this message was added before the last recall, whether it was taken since or not."""
        number = int.from_bytes(digest[:_BYTES], "big")
        first = bisect_left(self._sorted, number)
        return first < len(self._sorted) and self._sorted[first] == number

    def take(self, digest: bytes) -> bool:
        """Take this message if it was added before the last recall. Each of equal messages can be taken once."""
        number = int.from_bytes(digest[:_BYTES], "big")
        first = bisect_left(self._sorted, number)
        if first == len(self._sorted) or self._sorted[first] != number:
            return False
        if self._taken[first] == bisect_right(self._sorted, number, lo=first) - first:
            return False
        self._taken[first] += 1
        return True
