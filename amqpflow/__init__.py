"""Retries, parking and replay on plain RabbitMQ.

The public names, and nothing else. They are loaded on first use, so that `import amqpflow` and `amqpflow --help`
stay cheap: aio-pika and the HTTP client are imported only by what talks to a broker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import adopt, apply, destroy, drift, explain, plan, plan_replay, replay, replay_history
    from .api_parked import (
        choose_parked,
        discard_parked,
        export_parked,
        parked,
        parked_message,
        parked_stats,
        restore_parked,
    )
    from .delivery.breaker import Breaker
    from .errors import (
        AmqpflowError,
        AuthenticationFailed,
        BrokerError,
        BrokerUnavailable,
        ClientLibraryError,
        HandlerInvalid,
        Interrupted,
        Locked,
        LockLost,
        ManagementUnavailable,
        NotApplied,
        PartlyDone,
        PermissionDenied,
        PublishFailed,
        PublishRefused,
        PublishUncertain,
        Refused,
        TlsFailed,
        TopologyInvalid,
        Undecodable,
        Unpublishable,
        Unroutable,
        VirtualHostMissing,
        WrongUsage,
    )
    from .model.event import (
        BreakerClosed,
        BreakerHalfOpen,
        BreakerOpened,
        ConnectionBlocked,
        ConnectionEvent,
        ConnectionLost,
        ConnectionRecovered,
        ConnectionUnblocked,
        ConsumerEvent,
        ConsumerPaused,
        ConsumerResumed,
        ConsumerStarted,
        ConsumerStopped,
        Event,
        MessageAcked,
        MessageDiscarded,
        MessageEvent,
        MessageGivenBack,
        MessageHandled,
        MessageParked,
        MessagePostponed,
        MessageReceived,
        MessageRetried,
        MessageSettled,
    )
    from .model.outcome import Ack, Discard, Outcome, Park, Pause, Retry
    from .parking.selection import Selection, SelectionInvalid
    from .services.consumer import Consumer
    from .services.incoming import Message, RetryState
    from .services.middleware import CallNext, Middleware
    from .services.publisher import OutgoingMessage, Publisher
    from .services.replay_choice import ReplayChoice
    from .services.topology import Topology

__version__ = "0.1.0"

_HOME = {
    "api": ("adopt", "apply", "destroy", "drift", "explain", "plan", "plan_replay", "replay", "replay_history"),
    "api_parked": (
        "choose_parked",
        "discard_parked",
        "export_parked",
        "parked",
        "parked_message",
        "parked_stats",
        "restore_parked",
    ),
    "delivery.breaker": ("Breaker",),
    "errors": (
        "AmqpflowError",
        "AuthenticationFailed",
        "BrokerError",
        "BrokerUnavailable",
        "ClientLibraryError",
        "HandlerInvalid",
        "Interrupted",
        "LockLost",
        "Locked",
        "ManagementUnavailable",
        "NotApplied",
        "PartlyDone",
        "PermissionDenied",
        "PublishFailed",
        "PublishRefused",
        "PublishUncertain",
        "Refused",
        "TlsFailed",
        "TopologyInvalid",
        "Undecodable",
        "Unpublishable",
        "Unroutable",
        "VirtualHostMissing",
        "WrongUsage",
    ),
    "model.event": (
        "BreakerClosed",
        "BreakerHalfOpen",
        "BreakerOpened",
        "ConnectionBlocked",
        "ConnectionEvent",
        "ConnectionLost",
        "ConnectionRecovered",
        "ConnectionUnblocked",
        "ConsumerEvent",
        "ConsumerPaused",
        "ConsumerResumed",
        "ConsumerStarted",
        "ConsumerStopped",
        "Event",
        "MessageAcked",
        "MessageDiscarded",
        "MessageEvent",
        "MessageGivenBack",
        "MessageHandled",
        "MessageParked",
        "MessagePostponed",
        "MessageReceived",
        "MessageRetried",
        "MessageSettled",
    ),
    "model.outcome": ("Ack", "Discard", "Outcome", "Park", "Pause", "Retry"),
    "parking.selection": ("Selection", "SelectionInvalid"),
    "services.consumer": ("Consumer",),
    "services.incoming": ("Message", "RetryState"),
    "services.middleware": ("CallNext", "Middleware"),
    "services.publisher": ("OutgoingMessage", "Publisher"),
    "services.replay_choice": ("ReplayChoice",),
    "services.topology": ("Topology",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Ack",
    "AmqpflowError",
    "AuthenticationFailed",
    "Breaker",
    "BreakerClosed",
    "BreakerHalfOpen",
    "BreakerOpened",
    "BrokerError",
    "BrokerUnavailable",
    "CallNext",
    "ClientLibraryError",
    "ConnectionBlocked",
    "ConnectionEvent",
    "ConnectionLost",
    "ConnectionRecovered",
    "ConnectionUnblocked",
    "Consumer",
    "ConsumerEvent",
    "ConsumerPaused",
    "ConsumerResumed",
    "ConsumerStarted",
    "ConsumerStopped",
    "Discard",
    "Event",
    "HandlerInvalid",
    "Interrupted",
    "LockLost",
    "Locked",
    "ManagementUnavailable",
    "Message",
    "MessageAcked",
    "MessageDiscarded",
    "MessageEvent",
    "MessageGivenBack",
    "MessageHandled",
    "MessageParked",
    "MessagePostponed",
    "MessageReceived",
    "MessageRetried",
    "MessageSettled",
    "Middleware",
    "NotApplied",
    "Outcome",
    "OutgoingMessage",
    "Park",
    "PartlyDone",
    "Pause",
    "PermissionDenied",
    "PublishFailed",
    "PublishRefused",
    "PublishUncertain",
    "Publisher",
    "Refused",
    "ReplayChoice",
    "Retry",
    "RetryState",
    "Selection",
    "SelectionInvalid",
    "TlsFailed",
    "Topology",
    "TopologyInvalid",
    "Undecodable",
    "Unpublishable",
    "Unroutable",
    "VirtualHostMissing",
    "WrongUsage",
    "adopt",
    "apply",
    "choose_parked",
    "destroy",
    "discard_parked",
    "drift",
    "explain",
    "export_parked",
    "parked",
    "parked_message",
    "parked_stats",
    "plan",
    "plan_replay",
    "replay",
    "replay_history",
    "restore_parked",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
