"""A retry queue whose arguments changed under the same name is swapped through another one that stands in for it.

The stand-in takes the key, the old queue returns its messages to the work queue, is deleted and declared again, takes
the key back, and the stand-in goes the same way. Which of these steps are left is read from the broker each time, so
that an interrupted swap resumes: no record is needed, the stand-in's argument says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from amqpflow.model.names import beside
from amqpflow.model.resources import Binding, Queue
from amqpflow.planning.values.changes import STANDS_IN, Bind, Change, CreateQueue, DeleteQueue, Drain, Rebind, Unbind
from amqpflow.planning.values.differences import Difference, queue_differences
from amqpflow.planning.values.observation import Observation

SUFFIX = ".swap"  #: of a stand-in's name


def stand_in_name(queue: str) -> str:
    """Return the queue that carries a retry queue's key meanwhile."""
    return beside(queue, SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierReplacement:
    """One retry queue to be replaced, or whose replacement was begun."""

    desired: Queue
    work_queue: str
    retry_exchange: str
    observed: Observation

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Return how the queue of that name differs from the file; empty when it is missing, or new already."""
        there = self.observed.state.queues.get(self.desired.name)
        return queue_differences(self.desired, there) if there is not None else ()

    @property
    def under_way(self) -> bool:
        """Return whether the stand-in exists."""
        return self._stand_in_there is not None

    @property
    def carries(self) -> bool:
        """Return whether a queue with the arguments of the file has the key: retries are delayed as before."""
        has = {each.identity for each in self.observed.state.bindings}
        new = self.desired.name in self.observed.state.queues and not self.differences
        return self.under_way and (self._to_stand_in.identity in has or (new and self._to_itself.identity in has))

    def steps(self) -> Iterator[tuple[int, Change]]:
        """Yield the steps that are left: (rank, change). Swaps run together; steps of one rank are independent."""
        state = self.observed.state
        there = state.queues.get(self.desired.name)
        differs = bool(self.differences)
        if differs and there is not None:
            if not self.under_way:
                yield 0, CreateQueue(queue=self._stand_in)
            yield from self._give_key(1, self._to_stand_in, self._to_itself)
            yield 2, self._drain(there)
            yield 3, self._delete(there, f"it is replaced: {', '.join(map(str, self.differences))}")
        if differs or there is None:
            yield 4, CreateQueue(queue=self.desired)
        if differs:
            yield 5, Rebind(binding=self._to_itself, replaces=self._to_stand_in)
        else:
            yield from self._give_key(5, self._to_itself, self._to_stand_in)
        stand_in = self._stand_in_there or self._stand_in
        yield 6, self._drain(stand_in)
        yield 7, self._delete(stand_in, f"it stood in for {self.desired.name}")

    def _give_key(self, rank: int, to: Binding, away: Binding) -> Iterator[tuple[int, Change]]:
        bound = {each.identity for each in self.observed.state.bindings}
        has, had = to.identity in bound, away.identity in bound
        if had and not has:
            yield rank, Rebind(binding=to, replaces=away)
        elif had:
            yield rank, Unbind(binding=away, why=f"{to.destination} has the key")
        elif not has:
            yield rank, Bind(binding=to)

    @property
    def _stand_in(self) -> Queue:
        arguments = {**self.desired.arguments, STANDS_IN: self.desired.name}
        return replace(self.desired, name=stand_in_name(self.desired.name), arguments=arguments)

    @property
    def _stand_in_there(self) -> Queue | None:
        found = self.observed.state.queues.get(stand_in_name(self.desired.name))
        if found is None or found.owner != self.desired.owner or found.arguments.get(STANDS_IN) != self.desired.name:
            return None
        return found

    @property
    def _to_itself(self) -> Binding:
        name = self.desired.name
        return Binding(source=self.retry_exchange, destination=name, routing_key=name)

    @property
    def _to_stand_in(self) -> Binding:
        return replace(self._to_itself, destination=stand_in_name(self.desired.name))

    def _drain(self, queue: Queue) -> Drain:
        messages, since = self.observed.depth(queue.name).messages, self.observed.unbound_at(queue.name)
        return Drain(queue=queue, messages=messages, since_ms=since, returns_to=self.work_queue)

    def _delete(self, queue: Queue, why: str) -> DeleteQueue:
        depth = self.observed.depth(queue.name)
        return DeleteQueue(queue=queue, messages=depth.messages, consumers=depth.consumers, why=why)
