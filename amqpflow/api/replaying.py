"""The calls of a client that replay parked messages, and the journals of replays on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from amqpflow.services.reading.options import ReadOptions

from .connections import Connections, TopologyLike, compiled_of
from .options import refuse_places

if TYPE_CHECKING:
    from amqpflow.parking.journal import JournalState
    from amqpflow.services.replaying.plan import ReplayPlan
    from amqpflow.services.replaying.report import ReplayReport
    from amqpflow.services.replaying.request import ReplayRequest


def replay_history(journal: str | Path | None = None) -> tuple[JournalState, ...]:
    """Return the replays whose journals are kept on this machine, oldest first: who, when, what, and the result.

    Args:
        journal: directory of the journals, as for `replay`.

    Raises:
        RefusedError: the directory cannot be read, or another user may write in it. A file in it that is not a
            journal is left out.
    """
    from amqpflow.services.replaying.journal_files import journals_in

    return tuple(journals_in(journal).all(lambda *_: None))


def prune_replay_history(journal: str | Path | None = None, *, older_than: timedelta | None = None) -> tuple[str, ...]:
    """Remove the journals of finished replays. Those of replays that can be resumed stay.

    Args:
        journal: directory of the journals, as for `replay`.
        older_than: only of replays that began at least this long ago; None: all.

    Returns:
        The ids of the replays, the oldest first.

    Raises:
        RefusedError: as for `replay_history`; or a journal cannot be removed.
    """
    from amqpflow.services.replaying.journal_files import journals_in

    before = None if older_than is None else int((time.time() - older_than.total_seconds()) * 1000)
    return tuple(journals_in(journal).prune(before))


class Replaying:
    """The calls of a client about replays."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def plan_replay(
        self,
        topology: TopologyLike,
        *,
        queue: str | Sequence[str] | None = None,
        choice: ReplayRequest | None = None,
        options: ReadOptions | None = None,
    ) -> ReplayPlan:
        """Count what `replay` would take, by reason, error and destination; nothing is changed. See `replay`."""
        from amqpflow.services.replaying.plan import plan_replay

        options = refuse_places(options)
        async with self._connections.broker(topology, "replay") as (broker, compiled):
            return await plan_replay(broker, compiled, queue, choice=choice, options=options)

    async def replay(
        self,
        topology: TopologyLike,
        *,
        queue: str | Sequence[str] | None = None,
        choice: ReplayRequest | None = None,
        journal: str | Path | None = None,
        resume: str | None = None,
        options: ReadOptions | None = None,
        on_watch: Callable[[int, int], None] | None = None,
    ) -> ReplayReport:
        """Bring parked messages back to the work queue they failed in: publish, await the confirm, ack.

        They go in the order in which RabbitMQ delivers them: oldest first, but higher priorities first on a quorum
        queue of RabbitMQ 4 and on a classic queue with x-max-priority.

        Killed at any point it loses nothing, and the journal knows what was sent: the next replay of the queue, or the
        same one with `resume`, sends nothing of that again. At most 4,000 messages are in doubt then; they are sent
        again with the hop id of the first copy, or held. What is parked while it runs is not replayed.

        Args:
            queue: a work queue, several, or (None) all.
            choice: which messages, where to, how fast, when to stop by itself; None: all, to where they failed.
            journal: directory of the journals; None: `$XDG_STATE_HOME/amqpflow/replays`, below `~/.local/state`.
            resume: id of an interrupted replay to resume, or the beginning of it. Its journal has what it was asked
                for, whoever began it: leave `queue` and `choice` out, but for `in_doubt`, which may differ, and
                `set_headers`, whose values a journal does not hold.
            options: how to read the parking queues; `from_queues` and `origin` are not for a replay, see `choice`.
                When `stop` is set, what is in flight is settled and the rest requeued.
            on_watch: watch afterwards, until no message is on its way any more; called with the ready messages in the
                destinations and their retry queues, and those in the parking queues.

        Returns:
            A report, also when the replay stopped early: see `complete`, `stopped` and `left_behind`.

        Raises:
            UsageError: the topology has no such work queue, or there is no such replay.
            NotAppliedError, RefusedError: as for `parked.list`, or the journal cannot be written; nothing was done.
        """
        from amqpflow.services.replaying.journal_files import journals_in
        from amqpflow.services.replaying.replayer import replay_parked

        options = refuse_places(options)
        journals = journals_in(journal)
        state = journals.load(resume) if resume is not None else None
        async with self._connections.broker(topology, "replay") as (broker, compiled):
            return await replay_parked(
                broker,
                compiled,
                queue,
                choice=choice,
                journals=journals,
                resume=state,
                options=options,
                on_watch=on_watch,
            )

    replay_history = staticmethod(replay_history)
    prune_replay_history = staticmethod(prune_replay_history)


def resumed_replay(
    topology: TopologyLike,
    resume: str,
    *,
    queue: str | Sequence[str] | None = None,
    choice: ReplayRequest | None = None,
    journal: str | Path | None = None,
) -> tuple[tuple[str, ...] | None, ReplayRequest]:
    """Return the queues and the request of an interrupted replay, for a plan of what resuming it would take.

    Arguments and errors as for `Client.replay`; the broker is not asked.
    """
    from amqpflow.services.replaying.journal_files import journals_in
    from amqpflow.services.replaying.kept_request import resumed_request
    from amqpflow.services.replaying.run_journal import require_resumable

    state = journals_in(journal).load(resume)
    require_resumable(state)
    return resumed_request(state, queue, choice, compiled_of(topology))
