"""What may happen to messages and to the people who replay them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from amqpflow import replay_history
from amqpflow.model.content_header import encode_content_header
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.properties import Properties
from tests.faults.replay_and_die import POINTS
from tests.parked import delivered, parking_publish
from tests.statemachine.checks import Check, Ledger, is_eligible
from tests.statemachine.operators import Operator, Outcome, Request, Stop
from tests.statemachine.places import Content, Copy
from tests.statemachine.shop import ELSEWHERE, FILES, OWN, PARKING, QUEUES, WORK, Shop

EXAMPLES = int(os.environ.get("AMQPFLOW_TEST_MACHINE", "0"))

queues = st.lists(st.sampled_from(WORK), min_size=1, max_size=3, unique=True).map(tuple)
error_types = st.sampled_from([(), (), (), ("ValueError",), ("OSError",)])
limits = st.sampled_from([None, None, None, 1, 2, 4])
requests = st.builds(
    Request,
    queue=st.none() | queues,
    limit=limits,
    error_types=error_types,
    to=st.sampled_from([None, None, ELSEWHERE]),
    in_doubt=st.sampled_from(["send", "send", "hold"]),
    stop_if_reparked=st.sampled_from([None, 1.0]),
)
discards = st.builds(
    Request,
    do=st.just("discard"),
    queue=st.none() | queues,
    limit=st.none() | st.integers(1, 4),
    error_types=error_types,
)
batches = st.integers(1, 3)
times = st.sampled_from([1, 1, 2, 3])
prove_every = st.sampled_from([0.0, 2.0])
errors = st.sampled_from(["ValueError", "OSError"])
kinds = st.sampled_from(["ordinary", "same id", "without id", "twin", "by the broker", "twins by the broker"])

hows = st.sampled_from(["kill", "cancel", "stop"])
points = st.sampled_from([each for each in POINTS if each != "journal.torn"])
kills = st.builds(Stop, how=st.just("kill"), at=points, times=times)
# an example with a turn of the event loop is seldom the same twice, so those are for long runs
turns = [st.builds(Stop, how=hows, at=st.just("turn"), times=st.integers(1, 150))] if EXAMPLES else []
paused_turns = (
    [st.builds(Stop, how=st.just("pause"), at=st.just("turn"), times=st.integers(1, 150))] if EXAMPLES else []
)
stops = st.one_of(
    st.none(),
    st.builds(Stop, how=hows, at=points, times=times),
    kills,
    st.builds(Stop, how=st.just("kill"), at=st.just("journal.torn"), times=st.integers(2, 4)),
    *turns,
)
pauses = st.one_of(st.builds(Stop, how=st.just("pause"), at=points, times=times), *paused_turns)
discard_points = st.sampled_from(["write", "sync", "ack", "acked", "prove", "finish", "ack.sent", "nack.sent"])
discard_stops = st.none() | st.builds(Stop, how=hows, at=discard_points, times=times)
restore_points = st.sampled_from(["looked", "publish", "record", "recorded"])
restore_stops = st.none() | st.builds(Stop, how=hows, at=restore_points, times=times)


class Replays(RuleBasedStateMachine):
    """The places where messages are, and what may happen to them.

    What a rule draws, and whether it may be chosen, depends on nothing that a broker said: hypothesis repeats examples,
    and a broker does not do everything in the same order twice.
    """

    shop: Shop

    def __init__(self) -> None:
        super().__init__()
        self.shop.rest()
        self.shop.do(self.shop.places.empty(QUEUES))
        self.file = "own"
        self.numbers = count()
        self.ledger = Ledger()
        self.parked: Counter[Copy] | None = None  #: None: to be looked at
        self.journal = Path(tempfile.mkdtemp(dir=self.shop.directory))
        self.asked: dict[str, Request | None] = {}  #: what a replay was asked for, by its id; None: not known
        self.exports: list[Path] = []
        self.has_failed = False

    # -- messages

    @rule(kinds=st.lists(kinds, min_size=1, max_size=3), queues=queues, error=errors)
    def park(self, kinds: list[str], queues: tuple[str, ...], error: str) -> None:
        """Events fan out to some work queues, and are parked."""
        for kind in kinds:
            self._park_one(kind, queues, error)
        self.parked = None

    def _park_one(self, kind: str, queues: Sequence[str], error: str) -> None:
        number = next(self.numbers)
        content = {
            "ordinary": Content(message_id=f"e{number}", body=b"%d" % number, number=number),
            "same id": Content(message_id="same", body=b"", number=number),
            "without id": Content(message_id=None, body=b"", number=number),
            "twin": Content(message_id="twin", body=b""),
            "by the broker": Content(message_id=None, body=b"", number=number),
            "twins by the broker": Content(message_id=None, body=b""),
        }[kind]
        here = [each for each in queues if each in FILES[self.file]]
        headers = {} if content.number is None else {"number": content.number}
        self.ledger.made.update((queue, content) for queue in here)
        if "broker" in kind:
            self.shop.do(self._reject(here, content, headers))
        else:
            self.shop.do(
                self._park(
                    [
                        delivered(each, message_id=content.message_id, body=content.body, headers=headers)
                        for each in here
                    ],
                    error,
                )
            )

    async def _park(self, deliveries: Iterable[Delivery], error: str) -> None:
        channel, compiled = await self.shop.connection.open_channel(), self.shop.files[self.file]
        publishes = [parking_publish(compiled, each, error=error) for each in deliveries]
        await asyncio.gather(*map(channel.publish, publishes))
        await channel.close()

    async def _reject(self, queues: Sequence[str], content: Content, headers: Mapping[str, Any]) -> None:
        """Publish to the work queues, where a foreign consumer rejects: RabbitMQ parks it."""
        places, connection = self.shop.places, self.shop.connection
        properties = Properties(headers=headers or None, delivery_mode=2)
        header = encode_content_header(properties, len(content.body))
        channel, rejecting = await connection.open_channel(), await connection.admin_channel()
        for queue in queues:
            ready, _ = await places.counts(OWN[queue])
            await channel.publish(
                Publish(exchange="", routing_key=queue, header=header, body=content.body, identity="")
            )
            got = await rejecting.basic_get(queue)
            await rejecting.basic_reject(got.delivery_tag, requeue=False)
            await places.becomes(OWN[queue], ready + 1)
        await channel.close()
        await rejecting.close()

    @precondition(lambda self: self.ledger.made)
    @rule(error=errors)
    def fail_again(self, error: str) -> None:
        """All that came back fails once more, and is parked."""
        for queue in WORK:
            if queue in FILES[self.file] and self.ledger.arrived[queue]:
                copies, self.ledger.arrived[queue] = self.ledger.arrived[queue], []
                self.shop.do(self._park([each.delivery for each in copies], error))
        self.parked = None

    # -- what people do

    @rule(file=st.sampled_from(sorted(FILES)))
    def edit(self, file: str) -> None:
        """The file is edited."""
        self.file = file

    @precondition(lambda self: self.ledger.made)
    @rule()
    def forget(self) -> None:
        """The journals are deleted."""
        for path in self.journal.iterdir():
            path.unlink()
        self.asked.clear()

    @precondition(lambda self: self.ledger.made)
    @rule(request=requests, stop=stops, batch=batches, prove_every=prove_every)
    def replay(self, request: Request, stop: Stop | None, batch: int, prove_every: float) -> None:
        """Replay, to the end or until it is stopped at a point."""
        with self._checked([request]) as outcomes:
            outcomes.append(self._begin(request, stop, batch=batch, prove_every=prove_every).end())

    @precondition(lambda self: self.ledger.made)
    @rule(back=st.integers(0, 2), stop=stops, batch=batches, prove_every=prove_every)
    def resume(self, back: int, stop: Stop | None, batch: int, prove_every: float) -> None:
        """Resume one of the latest interrupted replays by its id, and say no more."""
        history = {each.head.id: each for each in replay_history(self.journal)}
        interrupted = [
            (id_, request)
            for id_, request in self.asked.items()
            if request is not None and id_ in history and not history[id_].is_complete
        ]
        if interrupted:
            id_, request = interrupted[-1 - back % len(interrupted)]
            with self._checked([request], resumed=True) as outcomes:
                outcomes.append(self._begin(None, stop, batch=batch, prove_every=prove_every, resume=id_).end())

    @precondition(lambda self: self.ledger.made)
    @rule(request=requests, kill=kills, stop=stops, batch=batches, prove_every=prove_every)
    def replay_in_two_runs(
        self, request: Request, kill: Stop, stop: Stop | None, batch: int, prove_every: float
    ) -> None:
        """Replay, be killed, and resume."""
        self.replay(request, kill, batch, prove_every)
        self.resume(0, stop, batch, prove_every)

    @precondition(lambda self: self.ledger.made)
    @rule(first=requests, second=requests, pause=pauses, stop=stops, batch=batches, prove_every=prove_every)
    def two_at_once(
        self, first: Request, second: Request, pause: Stop, stop: Stop | None, batch: int, prove_every: float
    ) -> None:
        """A second operator replays while the first is held at a point."""
        with self._checked([first, second]) as outcomes:
            one = self._begin(first, pause, batch=batch, prove_every=prove_every)
            one.is_held()
            two = self._begin(second, stop, batch=batch, prove_every=prove_every)
            two.is_held()
            one.release()
            outcomes += [one.end(), two.end()]

    @precondition(lambda self: self.ledger.made)
    @rule(request=discards, stop=discard_stops)
    def discard(self, request: Request, stop: Stop | None) -> None:
        """Take messages out, into a file."""
        export = self.journal.with_suffix(f".{len(self.exports)}")
        self.exports.append(export)
        self.ledger.out[export] = Counter()
        with self._checked([request], export=export) as outcomes:
            outcomes.append(self._begin(request, stop, export=export).end())

    @precondition(lambda self: self.exports)
    @rule(back=st.integers(0, 2), stop=restore_stops)
    def restore(self, back: int, stop: Stop | None) -> None:
        """Put back what one of the latest files holds."""
        export = self.exports[-1 - back % len(self.exports)]
        if export.exists():
            request = Request(do="restore")
            with self._checked([request], export=export) as outcomes:
                outcomes.append(self._begin(request, stop, export=export).end())

    def _begin(
        self,
        request: Request | None,
        stop: Stop | None,
        *,
        batch: int = 3,
        prove_every: float = 2.0,
        resume: str | None = None,
        export: Path | None = None,
    ) -> Operator:
        restores = request is not None and request.do == "restore"
        address = self.shop.address
        operator = self.shop.operators.begin(
            {
                "topology": self.file,
                "url": address.url,
                # a restore cannot tell without it whether reading is safe; the others are faster without
                "management_url": address.management_candidates()[-1] if restores else None,
                "asked": asdict(request) if request else None,
                "journal": str(self.journal),
                "resume": resume,
                "export": str(export) if export else None,
                "batch": batch,
                "prove_every": prove_every,
            },
            stop,
        )
        self.shop.at_work.append(operator)
        return operator

    # -- looking

    @contextmanager
    def _checked(
        self, requests: Sequence[Request], *, resumed: bool = False, export: Path | None = None
    ) -> Iterator[list[Outcome]]:
        """Look at everything before and after a run, and check what must hold."""
        self.has_failed = True
        before = self.parked if self.parked is not None else self.shop.do(self._look())
        outcomes: list[Outcome] = []
        yield outcomes
        self.shop.rest()
        self.parked = self.shop.do(self._look())
        came = self.shop.do(self.shop.places.take((*WORK, ELSEWHERE)))
        for copy in came:
            self.ledger.arrived[copy.place].append(copy)
        for outcome in outcomes:
            note(f"{outcome}")
        Check(
            ledger=self.ledger,
            file=FILES[self.file],
            requests=requests,
            outcomes=outcomes,
            before=before,
            after=self.parked,
            came=came,
            export=export,
            resumed=resumed,
        ).all()
        for path in sorted(self.journal.glob("*.replay")):
            if path.stem not in self.asked:
                # of two operators, which has which journal is not known
                self.asked[path.stem] = requests[0] if len(requests) == 1 else None
        self.has_failed = False

    async def _look(self) -> Counter[Copy]:
        return Counter(await self.shop.places.look(PARKING))

    def teardown(self) -> None:
        """In the end everything that has a way is replayed, whatever was interrupted before."""
        if self.has_failed:
            return
        for self.file in sorted(FILES):
            parked = self.parked if self.parked is not None else self.shop.do(self._look())
            if any(is_eligible(Request(), FILES[self.file], copy) for copy in parked):
                with self._checked([Request()]) as outcomes:
                    outcomes.append(self._begin(Request(), None).end())
        assert not self.parked
