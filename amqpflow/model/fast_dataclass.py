"""`__init__` and `replace` for frozen, slotted dataclasses that are made for every message, in a third of the time.

That of a frozen dataclass looks up `object.__setattr__` and the slot by its name for each field. This one calls the
slots' own descriptors; nothing else about the class changes (ADR 0014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

C = TypeVar("C", bound=type)
T = TypeVar("T")


def fast_init(cls: C) -> C:
    """Replace `__init__` of a class that `@dataclass(frozen=True, slots=True, kw_only=True)` has made."""
    scope: dict[str, Any] = {"missing": MISSING}
    parameters, lines = [], []
    for each in fields(cls):
        name = value = each.name
        if not each.init:
            raise TypeError(f"{cls.__name__}.{name} is not given to __init__")
        scope[f"set_{name}"] = cls.__dict__[name].__set__
        if each.default_factory is not MISSING:
            scope[f"new_{name}"] = each.default_factory
            parameters.append(f"{name}=missing")
            value = f"new_{name}() if {name} is missing else {name}"
        elif each.default is not MISSING:
            scope[f"default_{name}"] = each.default
            parameters.append(f"{name}=default_{name}")
        else:
            parameters.append(name)
        lines.append(f"    set_{name}(self, {value})\n")
    source = f"def __init__(self, *, {', '.join(parameters)}):\n{''.join(lines)}"
    exec(source, scope)  # noqa: S102 - as dataclasses does; the names are the fields' names
    made = scope["__init__"]
    made.__qualname__, made.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    made.__annotations__ = cls.__init__.__annotations__  # type: ignore[misc]
    cls.__init__ = made  # type: ignore[misc]
    return cls


def fast_replace(cls: type[T]) -> Callable[..., T]:
    """Build a faster `dataclasses.replace` for one such class."""
    scope: dict[str, Any] = {"missing": MISSING, "new": cls}
    names = [each.name for each in fields(cls)]  # type: ignore[arg-type]
    values = ", ".join(f"{name}=it.{name} if {name} is missing else {name}" for name in names)
    source = f"def replaced(it, /, *, {', '.join(f'{name}=missing' for name in names)}):\n    return new({values})\n"
    exec(source, scope)  # noqa: S102 - as above
    replaced: Callable[..., T] = scope["replaced"]
    return replaced
