"""What was seen before is known again, as often as it was seen."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.parking import digest_multiset
from amqpflow.parking.digest_multiset import DigestMultiset

DIGESTS = st.lists(st.integers(0, 30).map(lambda number: number.to_bytes(16, "little")), max_size=40)


@given(st.lists(DIGESTS, max_size=4), DIGESTS)
def test_it_is_a_multiset_whatever_the_number_of_readings(readings: list[list[bytes]], last: list[bytes]) -> None:
    seen, counted = DigestMultiset(), Counter[bytes]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_multiset, "_RUN", 7)
        for reading in readings:
            left = counted.copy()
            for digest in reading:
                if left[digest]:
                    left[digest] -= 1
                    assert seen.take(digest)
                else:
                    assert not seen.take(digest)
                    seen.add(digest)
                    counted[digest] += 1
            seen.recall()
    assert len(seen) == counted.total()
    for digest in last:
        assert seen.take(digest) == bool(counted[digest])
        counted[digest] -= bool(counted[digest])
