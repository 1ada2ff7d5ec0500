"""What must hold after each run: no message is lost, none is taken that was not asked for, and the report is true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amqpflow.parking.export import ExportedMessage
from amqpflow.services.parked.export_file import read_export
from tests.parked import delivered
from tests.statemachine.operating import WINDOW
from tests.statemachine.operators import Outcome, Request
from tests.statemachine.places import Content, Copy, copy_of
from tests.statemachine.shop import ELSEWHERE, WORK


@dataclass(kw_only=True)
class Ledger:
    """Which messages there are, and where they went."""

    made: Counter[tuple[str, Content]] = field(default_factory=Counter)  #: by the work queue they failed in
    arrived: dict[str, list[Copy]] = field(default_factory=lambda: {queue: [] for queue in (*WORK, ELSEWHERE)})
    """Copies that came to a queue and were not parked again."""
    out: dict[Path, Counter[Copy]] = field(default_factory=dict)  #: discarded into a file, and nowhere else
    certain: set[Path] = field(default_factory=set)  #: of those files, the ones whose discard came to its end
    hops: dict[tuple[str, Content, str], set[str]] = field(default_factory=dict)
    """Hop ids of the copies of a message in a queue, by how often it was replayed."""


def is_eligible(request: Request, file: Mapping[str, str], copy: Copy) -> bool:
    """Return whether a parked message is among what was asked for, with this version of the file."""
    wanted = set(file) if request.queue is None else set(request.queue)
    if request.do == "restore" or (request.error_types and copy.error_type not in request.error_types):
        return False
    if request.to is not None or request.do == "discard":
        read = {file[each] for each in wanted if each in file}
        return copy.place in read and (request.queue is None or copy.origin in wanted)
    return copy.origin in wanted and file.get(copy.origin or "") == copy.place


def exported(path: Path) -> Counter[Copy]:
    """Return what is in an export, as it lay in its parking queue."""
    lines = [line for _, line in read_export(str(path))] if path.exists() else []
    return Counter(
        copy_of(each.parking_queue, replace(delivered(each.parking_queue, body=each.body), header=each.header))
        for each in lines
        if isinstance(each, ExportedMessage)
    )


@dataclass(frozen=True, kw_only=True)
class Check:
    """One run, or two at once, and what lay where before and after."""

    ledger: Ledger
    file: Mapping[str, str]  #: work queue -> parking queue
    requests: Sequence[Request]
    outcomes: Sequence[Outcome]
    before: Counter[Copy]  #: parked
    after: Counter[Copy]  #: parked
    came: Sequence[Copy]  #: to work queues and elsewhere; the ledger has them already
    export: Path | None  #: the file of a discard or a restore
    resumed: bool  #: the request is that of the replay which was resumed

    def all(self) -> None:
        """Raise AssertionError for what does not hold."""
        assert not [outcome.crash for outcome in self.outcomes if outcome.crash]
        self.errors_are_known()
        self.files_hold_what_they_should()
        self.nothing_is_lost()
        self.nothing_is_taken_or_sent_unasked()
        self.second_copies_are_known()
        if len(self.outcomes) == 1 and self.outcomes[0].report is not None and self.requests[0].do == "replay":
            self.the_report_is_true(self.requests[0], self.outcomes[0].report)

    @property
    def taken(self) -> Counter[Copy]:
        return self.before - self.after

    def errors_are_known(self) -> None:
        """An operator is refused for a queue that the file does not have, for a replay that another one works on."""
        for request, outcome in zip(self.requests, self.outcomes, strict=True):
            unknown = set(request.queue or ()) - set(self.file)
            assert outcome.error is None or unknown or self.resumed or len(self.requests) > 1, outcome

    def files_hold_what_they_should(self) -> None:
        """What a discard took is in its file. What a restore put back was in its file, and all of it if it finished."""
        put_back = self.after - self.before
        if self.export is None:
            assert not put_back, f"parked by a replay: {put_back}"
            return
        inside, out = exported(self.export), self.ledger.out[self.export]
        if self.requests[0].do == "discard":
            assert not put_back
            out.update(self.taken)
            assert not out - inside, f"discarded, and not in the file: {out - inside}"
            if self.outcomes[0].is_undisturbed:
                self.ledger.certain.add(self.export)
        else:
            assert not put_back - inside, f"put back, and not in the file: {put_back - inside}"
            left = out - put_back
            if not self.outcomes[0].is_undisturbed:
                self.ledger.certain.discard(self.export)
            elif self.export in self.ledger.certain:
                assert not left, f"a finished restore left out what a finished discard took out: {left}"
            else:
                # in doubt: a parked message that is equal to one of the file in everything is taken for it
                left = out & self.before
            self.ledger.out[self.export] = left

    def nothing_is_lost(self) -> None:
        """Each message is parked, or came to its work queue, or (once for each) elsewhere, or is in a file."""
        ledger = self.ledger
        there: Counter[tuple[str | None, Content]] = Counter()
        there.update((queue, copy.content) for queue in WORK for copy in ledger.arrived[queue])
        for copies in (self.after, *ledger.out.values()):
            for copy, count in copies.items():
                there[copy.origin, copy.content] += count
        missing: Counter[Content] = Counter()
        of: dict[Content, list[str]] = {}
        for (queue, content), count in ledger.made.items():
            lacking = max(0, count - there[queue, content])
            missing[content] += lacking
            of.setdefault(content, []).extend([queue] * lacking)
        elsewhere = Counter(copy.content for copy in ledger.arrived[ELSEWHERE])
        lost = {content: of[content] for content, count in missing.items() if count > elsewhere[content]}
        assert not lost, f"lost, by the work queue: {lost}"

    def nothing_is_taken_or_sent_unasked(self) -> None:
        """Of the messages that were not asked for none left its parking queue, and of none a copy was sent."""
        foreign = [copy for copy in self.taken if not any(is_eligible(each, self.file, copy) for each in self.requests)]
        assert not foreign, f"taken, and not asked for: {foreign}"
        asked = {
            (request.to or copy.origin, copy.content)
            for copy in self.before
            for request in self.requests
            if request.do == "replay" and is_eligible(request, self.file, copy)
        }
        sent = [copy for copy in self.came if (copy.place, copy.content) not in asked]
        assert not sent, f"sent, and not asked for: {sent}"

    def second_copies_are_known(self) -> None:
        """Second copies come from an interruption alone, are few, and have the hop id of the first.

        They are at most a window without a confirm, and what was confirmed or acked in the same moment. A message that
        has neither an id nor a record may get another hop id, lest it be taken for its equal.
        """
        extra = len(self.came) - self.taken.total()
        disturbed = sum(not each.is_undisturbed for each in self.outcomes)
        assert extra <= 3 * WINDOW * disturbed, f"{extra} second copies"
        for copy in self.came:
            _, generation, _ = str(copy.hop).rsplit("/", 2)
            if None not in (copy.content.number, copy.content.message_id) and copy.place != ELSEWHERE:
                hops = self.ledger.hops.setdefault((copy.place, copy.content, generation), set())
                hops.add(str(copy.hop))
                assert len(hops) == 1, f"copies of one message with several hop ids: {hops}"

    def the_report_is_true(self, request: Request, report: Mapping[str, Any]) -> None:
        """Its numbers are what happened, and it is complete only when nothing is left of what was asked for."""
        left = Counter(copy for copy in self.after.elements() if is_eligible(request, self.file, copy))
        again = len(self.came) - report["replayed"]  # sent, confirmed, and not acked: counted as in doubt
        assert 0 <= again <= report["in_doubt"], report
        assert report["replayed"] + report["already"] <= self.taken.total(), report
        if report["interrupted"]:
            return
        held = request.in_doubt == "hold"
        assert report["complete"] or held, report
        assert report["replayed"] + report["already"] == self.taken.total(), report
        if self.resumed:
            return
        assert request.limit is None or report["replayed"] <= request.limit, report
        if request.limit is None or report["replayed"] < request.limit:
            assert left.total() == report["in_doubt"], report
        here = {self.file[queue] for queue in (self.file if request.queue is None else request.queue)}
        # a replay that was stopped at its limit has not read all queues, and is complete all the same
        unread = report["remaining"] is None and report["replayed"] == request.limit
        assert unread or report["remaining"] == sum(copy.place in here for copy in self.after.elements()), report
        if request.limit is None:
            others = [copy for copy in self.before.elements() if not is_eligible(request, self.file, copy)]
            assert report["others"] == sum(copy.place in here for copy in others), report
