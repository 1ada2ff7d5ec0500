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


def is_own(name: str) -> bool:
    """Return whether a name, with or without a module before it, can be that of an error of amqpflow."""
    return name.rpartition(".")[0] in ("", "amqpflow", "amqpflow.errors")


def current_name(name: str) -> str:
    """Return an error's present name for its old one, with or without a module before it; any other name as it is."""
    module, dot, old = name.rpartition(".")
    return module + dot + RENAMED.get(old, old) if is_own(name) else name
