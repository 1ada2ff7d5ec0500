"""What single changes and single policy keys do to messages and consumers, by the measured facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

from amqpflow.model.resources import Binding, Queue
from amqpflow.model.units import format_duration
from amqpflow.planning.values import changes
from amqpflow.planning.values.plan import Plan

AT_ONCE = "within 40 ms, for messages in the queue too"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a change, or a changed policy key, does to messages, consumers and bindings. An empty text: nothing."""

    how: str = ""  #: how it is done
    reason: str = ""  #: why it is not done in place, or why something goes
    messages: str = ""
    consumers: str = ""
    bindings: str = ""
    when: str = ""  #: when it takes effect, for messages that wait already too
    dangerous: bool = False  #: messages may leave a queue, or something is deleted
    notable: bool = False  #: something that exists is affected


def effect_of_change(change: changes.Change, plan: Plan) -> Effect:
    """Return what a change means for what is there, policies aside."""
    match change:
        case changes.CreateExchange():
            return Effect(how="exchange.declare")
        case changes.CreateQueue(queue=queue):
            consumers = "may start from now on" if queue.name in plan.topology.routes else ""
            messages = "none yet: it is empty until it is bound"
            return Effect(how="queue.declare", messages=messages, consumers=consumers)
        case changes.EnsureBinding():
            return Effect(how="queue.bind again, which changes nothing where it is bound")
        case changes.Bind(binding=binding):
            return Effect(
                how=_method(binding, "bind"),
                messages=f"those that fit go to {_destination(binding)} too, from now on",
                when="for what is published after it",
            )
        case changes.Unbind(binding=binding, why=why, unproven=unproven):
            doubt = "; amqpflow cannot tell whether it made this binding or an application did" if unproven else ""
            return Effect(
                how=_method(binding, "unbind"),
                reason=f"{why}{doubt}",
                messages=f"those in {_destination(binding)} stay; those published with this key no longer get there",
                bindings="others stay as they are",
                when="for what is published after it",
                notable=True,
                dangerous=unproven,
            )
        case changes.Rebind(binding=binding, replaces=bound):
            return Effect(
                how="unbind and bind, sent together",
                messages=f"those in {_destination(bound)} stay; new ones go to {_destination(binding)}",
                bindings="for about a millisecond the key has none: a publish is returned, and takes the next longer "
                "retry queue",
                when="for what is published after it",
                notable=True,
            )
        case changes.Drain():
            return _drain(change)
        case changes.DeleteQueue():
            return _delete(change)
        case changes.DeleteExchange(exchange=exchange, why=why):
            return Effect(
                how="exchange.delete, if nothing is bound from it",
                reason=why,
                messages=f"publishing to {exchange.name} afterwards closes the channel (404)",
                bindings="those into it go with it",
                when="at once",
                dangerous=True,
            )
        case changes.PutManifest():
            return Effect(how="PUT of a global parameter: what this topology owns and cannot stamp")
        case changes.RemoveManifest():
            return Effect(how="DELETE of the global parameter")
        case changes.PutPolicy() | changes.RemovePolicy():
            return Effect()
        case _:
            assert_never(change)


def _drain(change: changes.Drain) -> Effect:
    held = "its messages go" if change.messages is None else f"its {change.messages} messages go"
    return Effect(
        how="waiting until it is empty, seen twice; without `wait`, left for the next apply",
        reason="a deadline is fixed when a message is enqueued (fact 5.3), so each leaves at its own time",
        messages=f"{held} back to {change.returns_to or 'the work queue'}, each when it is due",
        consumers="continue",
        when=f"the last after at most {format_duration(change.delay_ms)}",
        notable=True,
    )


def _delete(change: changes.DeleteQueue) -> Effect:
    if change.forced:
        held = "its messages are" if change.messages is None else f"its {change.messages} messages are"
        messages = f"{held} deleted, none is dead-lettered (fact 5.7)"
        consumers = "are cancelled"
    else:
        held = "" if change.messages is None else f" ({change.messages} when the plan was made)"
        messages = f"none is lost: amqpflow counts exactly first, and keeps the queue if it holds any{held}"
        consumers = "none: the queue is kept if it has one"
    return Effect(
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


def effect_of_key(key: str, old: Any, new: Any, queue: Queue) -> Effect:
    """Return what happens to a queue when a policy key changes; None is a key that is not set.

    The queue is as the file says it will be: its arguments decide about limits and dead-lettering.
    """
    match key:
        case "max-length" | "max-length-bytes":
            return _limit(key, old, new, queue)
        case "message-ttl":
            return Effect(
                messages="those in the queue keep the deadline they were enqueued with",
                when="for what is enqueued after it; a shorter time waits behind older messages (fact 5.3)",
            )
        case "expires" if new is not None:
            messages = "an unused queue is deleted with all of them"
            return Effect(messages=messages, when="within seconds", dangerous=True)
        case "consumer-timeout":
            consumers = "the broker's own timeout for unacknowledged deliveries works again"
            if isinstance(new, int):
                held = f"one that holds a delivery longer than {format_duration(new)}"
                consumers = f"{held} is cancelled and the message delivered again"
            return Effect(consumers=consumers, when="within 40 ms, for deliveries under way too")
        case "delivery-limit":
            what = f"removed after {new} failed deliveries" if new is not None else "not removed by this limit any more"
            return Effect(messages=what, when="at the next return of each message")
        case "dead-letter-strategy" if old == "at-least-once":
            messages = "dead letters that RabbitMQ retains for a target are deleted (fact 4.11)"
            return Effect(messages=messages, dangerous=True)
        case "dead-letter-exchange" | "dead-letter-routing-key" | "dead-letter-strategy" if new is None:
            messages = f"{key} is not set any more: what is rejected or expires may be deleted"
            return Effect(messages=messages, when="at the next dead letter", dangerous=True)
        case "dead-letter-exchange" | "dead-letter-routing-key" | "dead-letter-strategy":
            return Effect(messages=f"dead letters go by {key} {new!r}", when="at the next dead letter (fact 11.6f)")
        case "overflow" if new != "reject-publish" and queue.type == "quorum":
            messages = "at-least-once dead-lettering is off (fact 4.4)"
            return Effect(messages=messages, when=AT_ONCE, dangerous=True)
        case "overflow":
            return Effect(messages=f"when it is full: {new or 'drop-head'}", when=AT_ONCE)
        case _ if key.startswith("delayed-retry-"):
            messages = "those that wait for a retry keep their time (fact 8.9)"
            return Effect(messages=messages, when="at the next rejection")
        case "pattern" | "priority" | "apply-to":
            return Effect()
        case _:
            return Effect(when="within 40 ms")


def _limit(key: str, old: Any, new: Any, queue: Queue) -> Effect:
    if new is None:
        return Effect(messages=f"{key} ends, none is taken out", when=AT_ONCE)
    if isinstance(old, int) and new >= old:
        return Effect(messages=f"{key} leaves room for more", when=AT_ONCE)
    if queue.arguments.get("x-overflow", "drop-head") == "drop-head":
        gone = "dead-lettered" if "x-dead-letter-exchange" in queue.arguments else "deleted"
        messages = f"the oldest beyond {key} are {gone} at once (fact 11.6f)"
        return Effect(messages=messages, when=AT_ONCE, dangerous=True)
    return Effect(
        messages=f"none is taken out; while there are more than {key}, publishes are refused (nack)",
        when="within 40 ms, for what is published after it",
    )
