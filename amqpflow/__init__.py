"""Retries, parking and replay on plain RabbitMQ.

The public names, and nothing else. They are loaded on first use, so that `import amqpflow` and `amqpflow --help`
stay cheap: aio-pika and the HTTP client are imported only by what talks to a broker.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .api import (
        adopt,
        apply,
        destroy,
        disown,
        drift,
        explain,
        plan,
        plan_replay,
        prune_replay_history,
        replay,
        replay_history,
    )
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
        AddressChangedError,
        AmqpflowError,
        AuthenticationError,
        BrokerError,
        BrokerUnavailableError,
        ClientLibraryError,
        InvalidHandlerError,
        InvalidTopologyError,
        LockedError,
        LockLostError,
        ManagementUnavailableError,
        NotAppliedError,
        PartlyDoneError,
        PermissionDeniedError,
        PublishError,
        PublishForbiddenError,
        PublishRefusedError,
        PublishUncertainError,
        RefusedError,
        StoppedError,
        TlsError,
        UndecodableError,
        UnpublishableError,
        UnroutableError,
        UsageError,
        VirtualHostMissingError,
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
        MessageHandled,
        MessageHeld,
        MessageParked,
        MessagePostponed,
        MessageReceived,
        MessageRequeued,
        MessageRetried,
        MessageSettled,
    )
    from .model.outcome import Ack, Discard, Outcome, Park, Pause, Retry
    from .model.outgoing import OutgoingMessage
    from .parking.selection import InvalidSelectionError, Selection
    from .services.consuming.consumer import Consumer
    from .services.handling.message import Message, RetryState
    from .services.handling.middleware import CallNext, Middleware
    from .services.loading.topology import Topology
    from .services.publishing.publisher import Publisher
    from .services.replaying.request import ReplayRequest

_HOME = {
    "api": (
        "adopt",
        "apply",
        "destroy",
        "disown",
        "drift",
        "explain",
        "plan",
        "plan_replay",
        "prune_replay_history",
        "replay",
        "replay_history",
    ),
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
        "AddressChangedError",
        "AmqpflowError",
        "AuthenticationError",
        "BrokerError",
        "BrokerUnavailableError",
        "ClientLibraryError",
        "InvalidHandlerError",
        "InvalidTopologyError",
        "LockLostError",
        "LockedError",
        "ManagementUnavailableError",
        "NotAppliedError",
        "PartlyDoneError",
        "PermissionDeniedError",
        "PublishError",
        "PublishForbiddenError",
        "PublishRefusedError",
        "PublishUncertainError",
        "RefusedError",
        "StoppedError",
        "TlsError",
        "UndecodableError",
        "UnpublishableError",
        "UnroutableError",
        "UsageError",
        "VirtualHostMissingError",
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
        "MessageHandled",
        "MessageHeld",
        "MessageParked",
        "MessagePostponed",
        "MessageReceived",
        "MessageRequeued",
        "MessageRetried",
        "MessageSettled",
    ),
    "model.outcome": ("Ack", "Discard", "Outcome", "Park", "Pause", "Retry"),
    "model.outgoing": ("OutgoingMessage",),
    "parking.selection": ("Selection", "InvalidSelectionError"),
    "services.consuming.consumer": ("Consumer",),
    "services.handling.message": ("Message", "RetryState"),
    "services.handling.middleware": ("CallNext", "Middleware"),
    "services.publishing.publisher": ("Publisher",),
    "services.replaying.request": ("ReplayRequest",),
    "services.loading.topology": ("Topology",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Ack",
    "AddressChangedError",
    "AmqpflowError",
    "AuthenticationError",
    "Breaker",
    "BreakerClosed",
    "BreakerHalfOpen",
    "BreakerOpened",
    "BrokerError",
    "BrokerUnavailableError",
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
    "InvalidHandlerError",
    "InvalidSelectionError",
    "InvalidTopologyError",
    "LockLostError",
    "LockedError",
    "ManagementUnavailableError",
    "Message",
    "MessageAcked",
    "MessageDiscarded",
    "MessageEvent",
    "MessageHandled",
    "MessageHeld",
    "MessageParked",
    "MessagePostponed",
    "MessageReceived",
    "MessageRequeued",
    "MessageRetried",
    "MessageSettled",
    "Middleware",
    "NotAppliedError",
    "Outcome",
    "OutgoingMessage",
    "Park",
    "PartlyDoneError",
    "Pause",
    "PermissionDeniedError",
    "PublishError",
    "PublishForbiddenError",
    "PublishRefusedError",
    "PublishUncertainError",
    "Publisher",
    "RefusedError",
    "ReplayRequest",
    "Retry",
    "RetryState",
    "Selection",
    "StoppedError",
    "TlsError",
    "Topology",
    "UndecodableError",
    "UnpublishableError",
    "UnroutableError",
    "UsageError",
    "VirtualHostMissingError",
    "adopt",
    "apply",
    "choose_parked",
    "destroy",
    "discard_parked",
    "disown",
    "drift",
    "explain",
    "export_parked",
    "parked",
    "parked_message",
    "parked_stats",
    "plan",
    "plan_replay",
    "prune_replay_history",
    "replay",
    "replay_history",
    "restore_parked",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        return _renamed(name)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def _renamed(name: str) -> Any:
    """Return what an old name stands for, with a warning. Raises AttributeError: it is not one."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .errors import RENAMED

    renamed = {
        **RENAMED,
        "MessageGivenBack": "MessageRequeued",
        "ReplayChoice": "ReplayRequest",
        "SelectionInvalid": "InvalidSelectionError",
    }
    new = renamed.get(name)
    if new is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"amqpflow.{name} is now amqpflow.{new}", DeprecationWarning, stacklevel=3)
    return __getattr__(new)


def __dir__() -> list[str]:
    return sorted(__all__)
