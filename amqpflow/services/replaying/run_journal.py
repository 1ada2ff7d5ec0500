"""Keep a replay's journal from its first line to its last, and read those of interrupted replays."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from uuid import uuid4

from amqpflow.errors import RefusedError
from amqpflow.parking.journal import OLD_VERSION, JournalHead, JournalState
from amqpflow.parking.journal_lines import end_line, only_line, resumed_line
from amqpflow.services.loading.whoami import whoami
from amqpflow.version import __version__

from .interrupted_sends import InterruptedReplay
from .journal_file import JournalFile
from .journal_files import Journals
from .kept_request import KeptRequest
from .state import ReplayState


class ReplayJournal:
    """The journal of one replay, whose id it has. Without `journals` nothing is kept; `resume` is the one to resume."""

    def __init__(self, journals: Journals | None, resume: JournalState | None, request: KeptRequest) -> None:
        self.id = resume.head.id if resume else uuid4().hex[:12]
        self.host = socket.gethostname()
        self._journals = journals
        self._resume = resume
        self._request = request
        self._file: JournalFile | None = None
        self._head: JournalHead | None = None
        self._opening = Lock()  # a task that is cancelled leaves its thread reading
        self._closed = False

    async def begin(self, replay: ReplayState, parking_queues: tuple[str, ...], messages: int) -> None:
        """Write the first line, and read what interrupted replays sent. Raises RefusedError: there is no place for it,
        another replay is writing it, or another user may write journals there. Nothing was sent.
        """
        if self._journals is None:
            return
        cluster, vhost = replay.place
        self._head = JournalHead(
            id=self.id,
            at=time.time_ns() // 1_000_000,
            by=whoami(),
            topology=replay.compiled.name,
            vhost=vhost,
            cluster=cluster,
            parking_queues=parking_queues,
            queues=self._request.queues,
            selection=self._request.selection,
            options=self._request.options,
            written_by=__version__,
            address=replay.address,
        )
        if self._resume is not None:
            require_resumable(self._resume)
            _require_same_place(self._resume, self._head)
        await asyncio.to_thread(self._begin, replay, self._journals, self._head, messages)
        self._note(replay)

    def _begin(self, replay: ReplayState, journals: Journals, head: JournalHead, messages: int) -> None:
        with self._opening:
            if self._closed:
                return
            if self._resume is not None:
                self._file = journals.reopen(self._resume)
                replay.resume(self._resume)
                replay.interrupted.add(
                    InterruptedReplay(
                        state=self._resume, file=self._file, is_believed=self._resume.head.address == head.address
                    )
                )
                replay.totals["resumed"].append({"resumed": head.at, "by": head.by})
                try:
                    self._file.write(resumed_line(head.at, head.by))
                except OSError as error:
                    raise RefusedError(f"the journal {self._file.path} cannot be written: {error.strerror}") from error
            self._learn(replay, journals, head)
            if self._file is None:
                only = self._request.only
                lines = only_line(only) if only is not None else b""
                self._file = journals.create(head, messages=messages, lines=lines)
            replay.journal = self._file
            replay.report.journal = str(self._file.path)

    async def look_again(self, replay: ReplayState) -> None:
        """Read what was written since, as by a replay that ran then and has ended. Raises RefusedError as `begin`."""
        if self._journals is not None and self._head is not None and self._file is not None:
            await asyncio.to_thread(self._look_again, replay, self._journals, self._head)
            self._note(replay)
        replay.begin_reading()

    def _look_again(self, replay: ReplayState, journals: Journals, head: JournalHead) -> None:
        with self._opening:
            if not self._closed:
                self._learn(replay, journals, head)

    def _learn(self, replay: ReplayState, journals: Journals, head: JournalHead) -> None:
        ours = {each.file.path for each in replay.interrupted if each.file is not None}
        if self._file is not None:
            ours.add(self._file.path)
        for each in [each for each in replay.interrupted if each.file is None]:
            replay.interrupted.forget(each.state.head.id)  # it may have ended by now
        for state, file in journals.unfinished(
            lambda other: _same_place(other, head), lambda path, why: self._unreadable(replay, path, why), but=ours
        ):
            if state.is_complete:  # it ended just now
                if file is not None:
                    file.close()
                continue
            # clusters can have one name: a copy that another broker confirmed may never have been sent to this one
            is_believed = file is not None and state.head.address == head.address
            replay.interrupted.add(InterruptedReplay(state=state, file=file, is_believed=is_believed))

    @staticmethod
    def _note(replay: ReplayState) -> None:
        for each in replay.interrupted:
            state = each.state
            doubtful = len(state.in_doubt) + (0 if each.is_believed else len(state.unacked))
            if each.file is None or not (doubtful or state.leaving):
                continue
            note = f"replay {state.head.id} was interrupted with {doubtful} in doubt"
            if state.leaving:
                note += f", and {len(state.leaving)} whose acks RabbitMQ may not have taken"
            if not any(known.startswith(f"replay {state.head.id} was interrupted") for known in replay.report.notes):
                replay.report.notes.append(note)

    @staticmethod
    def _unreadable(replay: ReplayState, path: Path, why: str) -> None:
        note = f"the journal {path} is not used: {why}"
        if note not in replay.report.notes:
            replay.report.notes.append(note)

    async def end(self, replay: ReplayState, *, read_whole: bool, held_by_others: bool = False) -> None:
        """Write the last line. Never raises: the report says what failed.

        `read_whole`: the parking queues were read to their end, so that interrupted replays of them are done with; but
        with `held_by_others` not all that is in them was seen.
        """
        if self._file is None:
            return
        others = [each for each in replay.interrupted if each.file not in (None, self._file)]
        if replay.next_number == 1 and self._resume is None and not others:
            self._file.discard()  # nothing was to be sent
            self._file = None
            replay.report.journal = None
            return
        summary = {**replay.report.summary(), **replay.totals}
        own = [each for each in replay.interrupted if each.file is self._file]
        if any(not self._is_done_with(each) for each in own) or (own and held_by_others):
            summary["complete"] = False  # for example, messages that are too old by now to be selected
        try:
            await self._file.written(end_line(summary))
            for each in others if read_whole else ():
                if self._is_done_with(each) and each.file is not None:
                    closing = {"complete": True, "finished_by": self.id, **each.state.totals()}
                    await each.file.written(end_line(closing))
        except OSError as error:
            replay.report.notes.append(f"the journal {self._file.path} has no last line: {error.strerror or error}")

    def close(self, files: Iterable[InterruptedReplay]) -> None:
        """Let others write it, and those of the interrupted replays."""
        with self._opening:
            self._closed = True
            for each in files:
                if each.file is not None:
                    each.file.close()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _is_done_with(self, each: InterruptedReplay) -> bool:
        """Tell whether all messages that it knows of were seen, and settled."""
        return (
            self._head is not None
            and set(each.state.head.parking_queues) <= set(self._head.parking_queues)
            and not each.passed_over
        )


def require_resumable(state: JournalState) -> None:
    """Raise RefusedError when there is nothing to resume, or when the journal does not tell the request."""
    if state.is_complete:
        raise RefusedError(
            f"replay {state.head.id} is already complete; nothing to resume",
            hint="leave out `resume` to replay the messages that are parked now",
        )
    if state.head.version == OLD_VERSION:
        raise RefusedError(
            f"the journal of replay {state.head.id} is of an earlier version ({OLD_VERSION}) and cannot be resumed; "
            "nothing was sent",
            hint="replay again with the same options: messages in doubt are sent again, with equal hop ids",
        )


def _require_same_place(state: JournalState, head: JournalHead) -> None:
    if not _same_place(state.head, head):
        raise RefusedError(
            f"replay {state.head.id} is of {', '.join(state.head.parking_queues)} in virtual host {state.head.vhost} "
            f"of {state.head.cluster or 'a broker without a name'}; nothing was sent",
            hint="give the URL and the file that it was started with",
        )


def _same_place(one: JournalHead, other: JournalHead) -> bool:
    return (one.cluster, one.vhost) == (other.cluster, other.vhost) and bool(
        set(one.parking_queues) & set(other.parking_queues)
    )
