"""Frozen dataclasses as JSON values and back, by their type hints: whatever is saved today is read as strictly.

A value that does not have the type its field says is a `UnreadablePlanError` that names the place. Members of a union
of classes carry the name of their class.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

_CLASS = "is"
_PLAIN = (str, int, float, bool)


class UnreadablePlanError(ValueError):
    """What was saved does not have the shape that is expected. `str()` says where."""


def encode(hint: Any, value: Any) -> Any:
    """Return `value`, which is of the type `hint`, as JSON takes it."""
    if value is None or hint is Any or hint in _PLAIN:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        classes: list[Any] = [each for each in arguments if is_dataclass(each)]
        chosen: Any = type(value) if type(value) in classes else _other(arguments)
        encoded = encode(chosen, value)
        return {_CLASS: chosen.__name__, **encoded} if len(classes) > 1 and chosen in classes else encoded
    if isinstance(hint, type) and is_dataclass(hint):
        hints = _hints(hint)
        return {name: encode(kind, getattr(value, name)) for name, kind in hints.items()}
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if _endless(arguments) else arguments
        return [encode(kind, each) for kind, each in zip(kinds, value, strict=True)]
    if origin is frozenset:
        return sorted((encode(arguments[0], each) for each in value), key=repr)
    if origin is Mapping:
        key, kind = arguments
        if key is str:
            return {name: encode(kind, each) for name, each in value.items()}
        return [[encode(key, name), encode(kind, each)] for name, each in value.items()]
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"no way to save {hint}")


def decode(hint: Any, data: Any, place: str = "") -> Any:
    """Return the value of the type `hint` that `encode` made `data` of.

    Raises:
        UnreadablePlanError: it was made of something else.
    """
    if hint is Any:
        return data
    if hint is float and type(data) is int:
        return data
    if hint in _PLAIN:
        return _checked(type(data) is hint, data, hint.__name__, place)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _of_union(arguments, data, place)
    if is_dataclass(hint):
        return _of_class(hint, data, place)
    if origin is tuple:
        _checked(isinstance(data, list), data, "a list", place)
        if _endless(arguments):
            return tuple(decode(arguments[0], each, f"{place}[{number}]") for number, each in enumerate(data))
        _checked(len(data) == len(arguments), data, f"a list of {len(arguments)}", place)
        return tuple(decode(kind, each, place) for kind, each in zip(arguments, data, strict=True))
    if origin is frozenset:
        _checked(isinstance(data, list), data, "a list", place)
        return frozenset(decode(arguments[0], each, place) for each in data)
    if origin is Mapping:
        return _of_mapping(arguments, data, place)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(data)
        except ValueError:
            raise UnreadablePlanError(f"{place or 'it'} is {data!r}, which is not a valid {hint.__name__}") from None
    raise TypeError(f"no way to read {hint}")


def _of_union(arguments: tuple[Any, ...], data: Any, place: str) -> Any:
    if data is None and type(None) in arguments:
        return None
    classes: dict[str, Any] = {each.__name__: each for each in arguments if isinstance(each, type)}
    classes = {name: each for name, each in classes.items() if is_dataclass(each)}
    if len(classes) > 1:
        _checked(isinstance(data, dict) and data.get(_CLASS) in classes, data, "a known kind", place)
        rest = {name: each for name, each in data.items() if name != _CLASS}
        return decode(classes[data[_CLASS]], rest, place)
    plain = [each for each in arguments if each in _PLAIN]
    if len(plain) > 1:
        return _checked(type(data) in plain, data, "one of them", place)
    return decode(_other(arguments), data, place)


def _of_class(hint: Any, data: Any, place: str) -> Any:
    hints = _hints(hint)
    _checked(isinstance(data, dict), data, "an object", place)
    if data.keys() != hints.keys():
        names = ", ".join(sorted(data.keys() ^ hints.keys()))
        raise UnreadablePlanError(f"{place or 'it'} has missing or unknown fields: {names}")
    prefix = f"{place}." if place else ""
    return hint(**{name: decode(kind, data[name], f"{prefix}{name}") for name, kind in hints.items()})


def _of_mapping(arguments: tuple[Any, ...], data: Any, place: str) -> Mapping[Any, Any]:
    key, kind = arguments
    if key is str:
        _checked(isinstance(data, dict), data, "an object", place)
        return {name: decode(kind, each, f"{place}[{name}]") for name, each in data.items()}
    _checked(isinstance(data, list) and all(isinstance(e, list) and len(e) == 2 for e in data), data, "pairs", place)
    return {decode(key, name, place): decode(kind, each, place) for name, each in data}


def _other(arguments: tuple[Any, ...]) -> Any:
    return next(each for each in arguments if each is not type(None))


def _endless(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 2 and arguments[1] is Ellipsis


def _checked(right: bool, data: Any, wanted: str, place: str) -> Any:
    if not right:
        raise UnreadablePlanError(f"{place or 'it'} is {type(data).__name__}, and should be {wanted}")
    return data


@lru_cache(maxsize=256)
def _hints(kind: Any) -> Mapping[str, Any]:
    """Return the types of the fields that are saved: `address` of a plan is not."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind) if each.metadata.get("saved", True)}
