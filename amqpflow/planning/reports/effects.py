"""What single changes and single policy keys do to messages and consumers, by the measured facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_never

from amqpflow.model.resources import Binding, Queue
from amqpflow.model.units import format_duration
from amqpflow.planning.values.changes import (
    Bind,
    Change,
    CreateExchange,
    CreateQueue,
    DeleteExchange,
    DeleteQueue,
    Drain,
    EnsureBinding,
    PutManifest,
    PutPolicy,
    Rebind,
    RemoveManifest,
    RemovePolicy,
    Unbind,
)
from amqpflow.planning.values.plan import Plan

Where = Literal["messages", "consumers", "when"]

AT_ONCE = "within 40 ms, for messages in the queue too"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEffect:
    """What a changed policy key does to one queue."""

    texts: tuple[tuple[Where, str], ...] = ()
    dangerous: bool = False  #: messages may leave the queue, or be deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEffect:
    """What a change other than a policy's does, and how it is done."""

    how: str = ""
    reason: str = ""  #: why it is not done in place
    messages: str = ""
    consumers: str = ""
    bindings: str = ""
    when: str = ""
    dangerous: bool = False
    notable: bool = False  #: something that exists is affected


def effect_of_change(change: Change, plan: Plan) -> ChangeEffect:
    """Return what a change means for what is there, policies aside."""
    match change:
        case CreateExchange():
            return ChangeEffect(how="exchange.declare")
        case CreateQueue(queue=queue):
            consumers = "may start from now on" if queue.name in plan.topology.routes else ""
            messages = "none yet: it is empty until it is bound"
            return ChangeEffect(how="queue.declare", messages=messages, consumers=consumers)
        case EnsureBinding():
            return ChangeEffect(how="queue.bind again, which changes nothing where it is bound")
        case Bind(binding=binding):
            return ChangeEffect(
                how=_method(binding, "bind"),
                messages=f"those that fit go to {_destination(binding)} too, from now on",
                when="for what is published after it",
            )
        case Unbind(binding=binding, why=why, unproven=unproven):
            doubt = "; amqpflow cannot tell whether it made this binding or an application did" if unproven else ""
            return ChangeEffect(
                how=_method(binding, "unbind"),
                reason=f"{why}{doubt}",
                messages=f"those in {_destination(binding)} stay; those published with this key no longer get there",
                bindings="others stay as they are",
                when="for what is published after it",
                notable=True,
                dangerous=unproven,
            )
        case Rebind(binding=binding, replaces=bound):
            return ChangeEffect(
                how="unbind and bind, sent together",
                messages=f"those in {_destination(bound)} stay; new ones go to {_destination(binding)}",
                bindings="for about a millisecond the key has none: a publish is returned, and takes the next longer "
                "retry queue",
                when="for what is published after it",
                notable=True,
            )
        case Drain():
            return _drain(change)
        case DeleteQueue():
            return _delete(change)
        case DeleteExchange(exchange=exchange, why=why):
            return ChangeEffect(
                how="exchange.delete, if nothing is bound from it",
                reason=why,
                messages=f"publishing to {exchange.name} afterwards closes the channel (404)",
                bindings="those into it go with it",
                when="at once",
                dangerous=True,
            )
        case PutManifest():
            return ChangeEffect(how="PUT of a global parameter: what this topology owns and cannot stamp")
        case RemoveManifest():
            return ChangeEffect(how="DELETE of the global parameter")
        case PutPolicy() | RemovePolicy():
            return ChangeEffect()
        case _:
            assert_never(change)


def _drain(change: Drain) -> ChangeEffect:
    held = "its messages go" if change.messages is None else f"its {change.messages} messages go"
    return ChangeEffect(
        how="waiting until it is empty, seen twice; without `wait`, left for the next apply",
        reason="a deadline is fixed when a message is enqueued (fact 5.3), so each leaves at its own time",
        messages=f"{held} back to {change.returns_to or 'the work queue'}, each when it is due",
        consumers="continue",
        when=f"the last after at most {format_duration(change.delay_ms)}",
        notable=True,
    )


def _delete(change: DeleteQueue) -> ChangeEffect:
    if change.forced:
        held = "its messages are" if change.messages is None else f"its {change.messages} messages are"
        messages = f"{held} deleted, none is dead-lettered (fact 5.7)"
        consumers = "are cancelled"
    else:
        held = "" if change.messages is None else f" ({change.messages} when the plan was made)"
        messages = f"none is lost: amqpflow counts exactly first, and keeps the queue if it holds any{held}"
        consumers = "none: the queue is kept if it has one"
    return ChangeEffect(
        how="queue.delete, on a connection of its own",
        reason=change.why,
        messages=messages,
        consumers=consumers,
        bindings="go with it",
        when="at once",
        dangerous=True,
    )


def _method(binding: Binding, verb: str) -> str:
    return f"{binding.destination_type}.{verb}"


def _destination(binding: Binding) -> str:
    return f"{binding.destination_type} {binding.destination}"


def effect_of_key(key: str, old: Any, new: Any, queue: Queue) -> KeyEffect:
    """
    Return what happens to a queue when a policy key changes; None is a key that is not set.

    Args:
        queue: as the file says it will be: its arguments decide about limits and dead-lettering.
    """
    match key:
        case "max-length" | "max-length-bytes":
            return _limit(key, old, new, queue)
        case "message-ttl":
            return KeyEffect(
                texts=(
                    ("messages", "those in the queue keep the deadline they were enqueued with"),
                    ("when", "for what is enqueued after it; a shorter time waits behind older messages (fact 5.3)"),
                )
            )
        case "expires" if new is not None:
            return KeyEffect(
                texts=(("messages", "an unused queue is deleted with all of them"), ("when", "within seconds")),
                dangerous=True,
            )
        case "consumer-timeout":
            return KeyEffect(
                texts=(("consumers", _timeout(new)), ("when", "within 40 ms, for deliveries under way too"))
            )
        case "delivery-limit":
            what = f"removed after {new} failed deliveries" if new is not None else "not removed by this limit any more"
            return KeyEffect(texts=(("messages", what), ("when", "at the next return of each message")))
        case "dead-letter-strategy" if old == "at-least-once":
            return KeyEffect(
                texts=(("messages", "dead letters that RabbitMQ retains for a target are deleted (fact 4.11)"),),
                dangerous=True,
            )
        case "dead-letter-exchange" | "dead-letter-routing-key" | "dead-letter-strategy":
            return _dead_letters(key, new)
        case "overflow":
            lossy = new != "reject-publish" and queue.type == "quorum"
            text = (
                "at-least-once dead-lettering is off (fact 4.4)" if lossy else f"when it is full: {new or 'drop-head'}"
            )
            return KeyEffect(texts=(("messages", text), ("when", AT_ONCE)), dangerous=lossy)
        case _ if key.startswith("delayed-retry-"):
            return KeyEffect(
                texts=(
                    ("messages", "those that wait for a retry keep their time (fact 8.9)"),
                    ("when", "at the next rejection"),
                )
            )
        case "pattern" | "priority" | "apply-to":
            return KeyEffect()
        case _:
            return KeyEffect(texts=(("when", "within 40 ms"),))


def _limit(key: str, old: Any, new: Any, queue: Queue) -> KeyEffect:
    if new is None:
        return KeyEffect(texts=(("messages", f"{key} ends, none is taken out"), ("when", AT_ONCE)))
    tighter = not isinstance(old, int) or new < old
    if not tighter:
        return KeyEffect(texts=(("messages", f"{key} leaves room for more"), ("when", AT_ONCE)))
    if queue.arguments.get("x-overflow", "drop-head") == "drop-head":
        gone = "dead-lettered" if "x-dead-letter-exchange" in queue.arguments else "deleted"
        return KeyEffect(
            texts=(("messages", f"the oldest beyond {key} are {gone} at once (fact 11.6f)"), ("when", AT_ONCE)),
            dangerous=True,
        )
    return KeyEffect(
        texts=(
            ("messages", f"none is taken out; while there are more than {key}, publishes are refused (nack)"),
            ("when", "within 40 ms, for what is published after it"),
        )
    )


def _timeout(new: Any) -> str:
    if not isinstance(new, int):
        return "the broker's own timeout for unacknowledged deliveries works again"
    return f"one that holds a delivery longer than {format_duration(new)} is cancelled and the message delivered again"


def _dead_letters(key: str, new: Any) -> KeyEffect:
    if new is None:
        text = f"{key} is not set any more: what is rejected or expires may be deleted"
        return KeyEffect(texts=(("messages", text), ("when", "at the next dead letter")), dangerous=True)
    return KeyEffect(
        texts=(("messages", f"dead letters go by {key} {new!r}"), ("when", "at the next dead letter (fact 11.6f)"))
    )
