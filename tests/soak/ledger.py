"""What a soak wrote down, and what it proves: standstills, lost messages, second copies. Values alone."""

from __future__ import annotations

import itertools
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.soak.kinds import EXPECTED, NATIVE, kind_of

Span = tuple[float, float]


@dataclass(slots=True)
class Ledger:
    """Lines of the consumer, read as they come."""

    done: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  #: message id -> hops
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)  #: (message id, hop) -> times
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  #: queue -> when one was done
    retried: list[float] = field(default_factory=list)  #: when one that had been published again was done

    def read(self, line: str) -> None:
        """Take in one line of the service."""
        what, at, queue, message_id, attempt, hop = line.split(" ", 5)
        hop = hop.rstrip("\n")
        if what == "C":
            self.calls[message_id, hop] += 1
            return
        self.done[message_id].append(hop)
        self.times[queue].append(float(at))
        if attempt != "1" and queue != NATIVE:
            self.retried.append(float(at))


def standstill(times: Sequence[float], window: Span, not_counted: Iterable[Span] = ()) -> float:
    """Return the longest time in seconds without an entry of `times` within the window.

    Args:
        times: ascending.
        window: where to look; its ends count as entries.
        not_counted: spans in which nothing could have been done.
    """
    begin, end = window
    marks = [begin, *times[bisect_right(times, begin) : bisect_left(times, end)], end]
    spans = [each for each in not_counted if each[0] < end and each[1] > begin]
    longest = 0.0
    for one, other in itertools.pairwise(marks):
        away = sum(max(0.0, min(other, until) - max(one, since)) for since, until in spans)
        longest = max(longest, other - one - away)
    return longest


def idle_spans(samples: Sequence[tuple[float, bool]]) -> list[Span]:
    """Return the spans with nothing to do: `samples` are (time, whether there was something since the one before)."""
    return [(before, at) for (before, _), (at, offered) in itertools.pairwise(samples) if not offered]


@dataclass(slots=True)
class Account:
    """Where every message is."""

    lost: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)  #: not where it has to be, and where it is
    again: int = 0  #: handled or parked a second time, with the hop id of the first
    after_failure: int = 0  #: handled a second time, when one call for the same delivery had failed
    unexplained: list[str] = field(default_factory=list)  #: handled a second time, and no hop id tells

    @property
    def problems(self) -> list[str]:
        return [
            *(f"lost: {each}" for each in self.lost),
            *(f"elsewhere: {each}" for each in self.elsewhere),
            *(f"a second copy that cannot be told: {each}" for each in self.unexplained),
        ]


def account(
    sent: Iterable[str], ledger: Ledger, parked: Mapping[str, Sequence[tuple[str, str]]], left: Mapping[str, int]
) -> Account:
    """Find every message.

    Args:
        sent: ids of all messages that the broker confirmed.
        ledger: what the handlers did.
        parked: message id -> (reason, hop) of each message with it in a parking queue.
        left: message id -> how many of it are in another queue.
    """
    found = Account()
    for each in sent:
        reason, hops, places = EXPECTED[kind_of(each)], ledger.done.get(each, []), parked.get(each, ())
        if each in left:
            found.elsewhere.append(f"{each} is still in a queue, {left[each]} times")
        elif not hops and not places:
            found.lost.append(each)
        wrong = [why for why, _ in places if why != reason]
        if wrong:
            found.elsewhere.append(f"{each} is parked as {', '.join(wrong)}, not {reason or 'done'}")
        if reason is not None and hops:
            found.elsewhere.append(f"{each} is done, not parked as {reason}")
        copies = Counter(hops) + Counter(hop for _, hop in places)
        found.again += sum(count - 1 for count in copies.values())
        if len(copies) > 1:
            if max(ledger.calls[each, hop] for hop in copies) > 1:
                found.after_failure += 1
            else:
                found.unexplained.append(f"{each}: {', '.join(copies)}")
    return found


def grown(samples: Sequence[float]) -> float:
    """Return how much the median of the last quarter is above that of the second."""
    quarter = len(samples) // 4
    if not quarter:
        return 0.0
    return statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : 2 * quarter])
