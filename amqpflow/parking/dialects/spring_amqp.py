"""Spring AMQP: what RepublishMessageRecoverer, and Spring Cloud Stream with republishToDlq, add.

https://docs.spring.io/spring-amqp/api/org/springframework/amqp/rabbit/retry/RepublishMessageRecoverer.html: headers
`x-exception-stacktrace`, `x-exception-message`, `x-original-exchange` and `x-original-routingKey`. No queue is written:
it is known only when the message was published through the default exchange, or when x-death names one where it failed.
Attempts are not written either. The type stands at the head of the stack trace; a listener's own exception wraps the
cause.
"""

from __future__ import annotations

import re

from amqpflow.model.message import Delivery
from amqpflow.model.record import as_text
from amqpflow.parking.foreign import Foreign, headers_of, text

from . import dead_letter

_STACK, _MESSAGE = "x-exception-stacktrace", "x-exception-message"
_EXCHANGE, _KEY = "x-original-exchange", "x-original-routingKey"
_TYPE = r"((?:[A-Za-z_$][\w$]{0,99}\.){1,20}[A-Za-z_$][\w$]{0,199})"
_FIRST, _CAUSE = re.compile(_TYPE, re.ASCII), re.compile(rf"Caused by: {_TYPE}", re.ASCII)
_WRAPPERS = ("ListenerExecutionFailedException", "MessageHandlingException")


def read(delivery: Delivery) -> Foreign | None:
    """Read the message if one of Spring's recoverers republished it."""
    headers = headers_of(delivery)
    if not (_KEY in headers and (_STACK in headers or _MESSAGE in headers)):
        return None
    exchange, key = as_text(headers.get(_EXCHANGE)), as_text(headers.get(_KEY))
    stack = text(headers, _STACK)
    failure = dead_letter.read_failure(delivery)
    return Foreign(
        dialect="spring-amqp",
        queue=key if exchange == "" and key else failure.queue if failure else None,
        exchange=exchange,
        routing_key=key,
        error_type=_type(stack),
        error_message=text(headers, _MESSAGE),
        error_stack=stack,
    )


def _type(stack: str | None) -> str | None:
    found = _FIRST.match(stack) if stack else None
    if stack is None or found is None:
        return None
    if found[1].endswith(_WRAPPERS) and (cause := _CAUSE.search(stack)):
        return cause[1]
    return found[1]
