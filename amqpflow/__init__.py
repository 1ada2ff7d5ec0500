"""Retries, parking and replay on plain RabbitMQ.

The public names are those of `__init__.pyi`. They are loaded on first use, so that `import amqpflow` and
`amqpflow --help` stay cheap: aio-pika and the HTTP client are imported only by what talks to a broker.
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from .version import __version__ as __version__

_MODULE_OF: dict[str, str] = {
    name: module
    for module, name in re.findall(
        r"^from (\.\S+) import (\w+) as \2$", Path(__file__).with_suffix(".pyi").read_text(), re.MULTILINE
    )
    if name != "__version__"
}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        return _renamed(name)
    value = getattr(import_module(module, __name__), name)
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
    return __all__
