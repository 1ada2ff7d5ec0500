"""The names that the errors of amqpflow had until 0.1: records of messages, rules and selections still have them."""

#: names until 0.1, which stay as aliases until 1.0
RENAMED = {
    "AddressChanged": "AddressChangedError",
    "AuthenticationFailed": "AuthenticationError",
    "BrokerUnavailable": "BrokerUnavailableError",
    "HandlerInvalid": "InvalidHandlerError",
    "Interrupted": "StoppedError",
    "LockLost": "LockLostError",
    "Locked": "LockedError",
    "ManagementUnavailable": "ManagementUnavailableError",
    "NotApplied": "NotAppliedError",
    "PartlyDone": "PartlyDoneError",
    "PermissionDenied": "PermissionDeniedError",
    "PublishFailed": "PublishError",
    "PublishForbidden": "PublishForbiddenError",
    "PublishRefused": "PublishRefusedError",
    "PublishUncertain": "PublishUncertainError",
    "Refused": "RefusedError",
    "TlsFailed": "TlsError",
    "TopologyInvalid": "InvalidTopologyError",
    "Undecodable": "UndecodableError",
    "Unpublishable": "UnpublishableError",
    "Unroutable": "UnroutableError",
    "VirtualHostMissing": "VirtualHostMissingError",
    "WrongUsage": "UsageError",
}


_MODULES = ("amqpflow", "amqpflow.errors")


def is_own(recorded: str) -> bool:
    """Return whether a recorded name is that of an error of amqpflow, whose records have its module."""
    return recorded.rpartition(".")[0] in _MODULES


def current_name(name: str) -> str:
    """Return an error's present name for its old one, with or without a module before it; any other name as it is."""
    module, dot, old = name.rpartition(".")
    return module + dot + RENAMED.get(old, old) if module in ("", *_MODULES) else name
