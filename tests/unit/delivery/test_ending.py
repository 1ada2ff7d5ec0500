"""What is said of a consumer that ended."""

from __future__ import annotations

from dataclasses import replace

from amqpflow.delivery.ending import Held, cancelled, channel_closed
from amqpflow.model.closing import closed_by_broker

TIMED_OUT = (
    "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 4000 ms. "
    "This timeout value can be configured, see consumers doc guide to learn more"
)
SLOW = Held(message_id="slow", seconds=11.24, state="handled")
QUICK = Held(message_id="quick", seconds=0.5, state="handled")


def test_a_consumer_timeout_names_handler_message_and_both_times() -> None:
    reason = closed_by_broker("channel", 406, TIMED_OUT)
    said = channel_closed(reason, [QUICK, SLOW], "service.confirm")
    assert said == (
        "handler service.confirm held message slow for 11s, longer than the consumer timeout of 4s; the broker closed "
        "the channel: 406 PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: "
        "4000 ms"
    )


def test_a_consumer_timeout_of_a_message_that_no_handler_has_blames_no_handler() -> None:
    waiting = Held(message_id=None, seconds=5.0, state="waiting")
    said = channel_closed(closed_by_broker("channel", 406, TIMED_OUT), [waiting, waiting], "service.confirm")
    assert said.startswith("a message without id waited for handler service.confirm for 5s, and 1 more, longer than")


def test_another_end_of_a_channel_is_the_brokers_text() -> None:
    said = channel_closed(closed_by_broker("channel", 541, "INTERNAL_ERROR"), [SLOW], "service.confirm")
    assert said == "the channel was closed: RabbitMQ closed the channel: 541 INTERNAL_ERROR"


def test_a_cancel_without_a_reason_is_told_from_what_is_known() -> None:
    assert cancelled(False, [SLOW], "h", 4000) == "the broker cancelled the consumer: the queue was deleted"
    assert cancelled(True, [SLOW], "h", 4000) == (
        "the broker cancelled the consumer: handler h held message slow for 11s, longer than the consumer timeout of 4s"
    )
    unknown = cancelled(True, [SLOW], "h", None)
    assert "perhaps its leader moved to another node, or the consumer timeout of the broker is shorter than 11s" in (
        unknown
    )
    assert "handler h held message slow" in unknown
    assert cancelled(True, [], "h", None).endswith("the queue is still there; perhaps its leader moved to another node")
    assert "it gave no reason" in cancelled(None, [], "h", None)


def test_the_time_that_a_delivery_travels_is_no_reason_to_doubt_the_timeout() -> None:
    """The broker counts from when it sent it: ours is a little shorter."""
    held = replace(SLOW, seconds=0.96)
    assert cancelled(True, [held], "h", 1000).endswith(", longer than the consumer timeout of 1s")
    assert "perhaps its leader moved" in cancelled(True, [replace(SLOW, seconds=0.5)], "h", 1000)


def test_a_message_whose_handler_has_ended_is_not_said_to_be_held_by_it() -> None:
    unsettled = Held(message_id="m", seconds=31.0, state="unsettled")
    said = channel_closed(closed_by_broker("channel", 406, TIMED_OUT), [unsettled], "service.confirm")
    assert said.startswith("message m could not be settled after handler service.confirm for 31s, longer than the")


def test_a_limit_that_the_broker_does_not_name_is_left_out() -> None:
    """RabbitMQ 4.3 writes -1 for what a cancelled consumer left unacked."""
    reason = closed_by_broker("channel", 406, TIMED_OUT.replace("4000", "-1"))
    assert reason.consumer_timeout_ms == 0
    said = channel_closed(reason, [SLOW], "h")
    assert said.startswith("handler h held message slow for 11s, longer than the consumer timeout; the broker closed")
