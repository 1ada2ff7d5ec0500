"""A replay's journal from its first line to its last, and what the journals of interrupted replays know."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from amqpflow import __version__
from amqpflow.errors import Refused
from amqpflow.parking.journal import JournalHead, JournalState, end_line, resumed_line

from .journal import JournalFile, Journals
from .replay_run import Work
from .whoami import whoami


class ReplayJournal:
    """
    The journal of one replay. `id` is its replay's.

    Args:
        journals: where it is kept; None: nowhere.
        resume: the one to go on with.
        asked: selection and options as they were asked for.
    """

    def __init__(self, journals: Journals | None, resume: JournalState | None, asked: Mapping[str, Any]) -> None:
        self.id = resume.head.id if resume else uuid4().hex[:12]
        self.host = socket.gethostname()
        self._journals = journals
        self._resume = resume
        self._asked = asked
        self._file: JournalFile | None = None
        self._head: JournalHead | None = None
        self._interrupted: dict[str, JournalState] = {}

    async def begin(self, work: Work, parking_queues: tuple[str, ...], everything: bool, messages: int) -> None:
        """
        Write the first line, and learn what was sent already.

        Raises:
            Refused: there is no place for it, or another replay is writing it. Nothing was sent.
        """
        if self._journals is None:
            return
        now, by = time.time_ns() // 1_000_000, whoami()
        cluster, vhost = work.place
        head = JournalHead(
            id=self.id,
            at=now,
            by=by,
            topology=work.compiled.name,
            vhost=vhost,
            cluster=cluster,
            parking_queues=parking_queues,
            queue=None if everything else ", ".join(sorted(work.queues or ())),
            selection=self._asked.get("selection", {}),
            options=self._asked.get("options", {}),
            written_by=__version__,
            address=work.address,
        )
        if self._resume is not None:
            _require_resumable(self._resume, head)
        self._head = head
        self._learn_from(work, self._journals.all(lambda path, why: self._unreadable(work, path, why)))
        if self._resume is not None:
            self._learn(work, self._resume)
            work.next_number = self._resume.next_number
            self._file = self._journals.reopen(self._resume)
            try:
                self._file.write(resumed_line(now, by))
            except OSError as error:
                raise Refused(f"the journal {self._file.path} cannot be written: {error.strerror}") from error
        else:
            self._file = self._journals.create(head, messages=messages)
        work.journal = self._file
        work.report.journal = str(self._file.path)

    def look_again(self, work: Work) -> None:
        """Learn what was written since `begin`, for one by a replay that was running then and is not any more."""
        if self._journals is not None and self._file is not None:
            changed = self._journals.changed(lambda path, why: self._unreadable(work, path, why), but=self._file.path)
            self._learn_from(work, changed)

    def _learn_from(self, work: Work, states: Iterable[JournalState]) -> None:
        for state in states:
            if state.head.id == self.id or self._head is None or not _same_place(state.head, self._head):
                continue
            if state.is_complete:
                self._interrupted.pop(state.head.id, None)
                continue
            self._interrupted[state.head.id] = state
            self._learn(work, state)

    @staticmethod
    def _learn(work: Work, state: JournalState) -> None:
        doubtful = set(state.in_doubt.values())
        if state.head.address == work.address:
            work.known.confirmed |= state.unacked
        else:
            # clusters can have one name: what another broker confirmed may never have been sent to this one
            doubtful |= state.unacked
        work.known.in_doubt |= doubtful
        note = f"replay {state.head.id} was interrupted with {len(doubtful)} in doubt"
        if doubtful and note not in work.report.notes:
            work.report.notes.append(note)

    @staticmethod
    def _unreadable(work: Work, path: Path, why: str) -> None:
        work.report.notes.append(f"the journal {path} is not used: {why}")

    def end(self, work: Work, *, read_whole: bool) -> None:
        """
        Write the last line. Nothing is raised: what it would say is in the report.

        Args:
            work: the replay.
            read_whole: the parking queues were read to their end, so that interrupted replays of them are done with.
        """
        if self._file is None or self._journals is None:
            return
        if work.next_number == 1 and self._resume is None and not self._interrupted:
            self._file.discard()  # nothing was to be sent
            self._file = None
            work.report.journal = None
            return
        summary = dict(work.report.summary())
        if self._resume is not None and not self._is_done_with(self._resume, work):
            summary["complete"] = False  # for one, what is too old by now to be selected
        try:
            self._file.write(end_line(summary))
            if read_whole:
                for state in self._interrupted.values():
                    if self._is_done_with(state, work):
                        self._close(state)
        except OSError as error:
            work.report.notes.append(f"the journal {self._file.path} has no last line: {error.strerror or error}")

    def close(self) -> None:
        """Let others write it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_done_with(self, state: JournalState, work: Work) -> bool:
        """Whatever it knows of was seen, and settled."""
        known = state.unacked | set(state.in_doubt.values())
        return (
            self._head is not None
            and set(state.head.parking_queues) <= set(self._head.parking_queues)
            and not known & work.known.passed_over
        )

    def _close(self, state: JournalState) -> None:
        try:
            file = self._journals.reopen(state) if self._journals else None
        except Refused:
            return  # somebody goes on with it just now
        if file is not None:
            try:
                file.write(end_line({"complete": True, "finished_by": self.id}))
            finally:
                file.close()


def _require_resumable(state: JournalState, head: JournalHead) -> None:
    if state.is_complete:
        raise Refused(
            f"replay {state.head.id} came to its end: there is nothing to go on with",
            hint="leave --resume out to replay what is parked now",
        )
    if not _same_place(state.head, head):
        raise Refused(
            f"replay {state.head.id} is of {', '.join(state.head.parking_queues)} in virtual host {state.head.vhost} "
            f"of {state.head.cluster or 'a broker without a name'}; nothing was sent",
            hint="give the URL and the file that it was started with",
        )


def _same_place(one: JournalHead, other: JournalHead) -> bool:
    return (one.cluster, one.vhost) == (other.cluster, other.vhost) and bool(
        set(one.parking_queues) & set(other.parking_queues)
    )
