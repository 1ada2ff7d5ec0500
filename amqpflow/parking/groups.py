"""Count messages by group, in a limited number of groups."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

T = TypeVar("T")

GROUPS_AT_MOST = 10_000  #: messages of further groups are counted together
OTHERS = "(others)"


def count_group(groups: Counter[T], group: T, others: T) -> None:
    """Count one message; in `others` when its group is new and there are enough."""
    groups[others if group not in groups and len(groups) >= GROUPS_AT_MOST else group] += 1
