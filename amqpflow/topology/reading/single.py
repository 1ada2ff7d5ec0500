"""Single values: the text of a scalar -> a value of its shape."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import assert_never

from amqpflow.model.units import format_duration, parse_duration, parse_percentage, parse_size
from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.types import Boolean, Choice, Duration, Integer, Number, Percent, Single, Size, Text

from .nodes import ListNode, MappingNode, Node, Scalar

_WORDS: Mapping[type, str] = {
    Boolean: "true or false",
    Integer: "a whole number",
    Number: "a number",
    Duration: "a duration such as 30s",
    Size: "a size such as 64KiB",
    Percent: "a percentage such as 10%",
}


class UnfitError(Exception):
    """A value that does not fit; `known` are the words it might have been meant to be."""

    def __init__(self, code: Code, message: str, hint: str = "", *, known: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code, self.hint, self.known = code, hint, known


def describe(node: Node) -> str:
    """Return what a node is, in a few words, for messages."""
    match node:
        case MappingNode():
            return "a mapping"
        case ListNode():
            return "a list"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return node.text
        case Scalar(value=int() | float()):
            return f"the number {node.text}"
        case Scalar():
            return f"the text {node.text[:60]!r}"
    assert_never(node)


def read_single(node: Node, shape: Single, name: str) -> str | int | float | bool | Fraction:
    """Return a value: a duration in milliseconds, a size in bytes, a percentage as Fraction. Raises UnfitError."""
    if not isinstance(node, Scalar):
        raise _wrong(node, shape, name)
    match shape:
        case Text():
            return _text(node, shape, name)
        case Choice():
            return _choice(node, shape, name)
        case Boolean():
            if isinstance(node.value, bool):
                return node.value
            old = node.text.casefold() in ("yes", "no", "on", "off", "y", "n")
            raise _wrong(node, shape, name, "yes, no, on and off are text in YAML 1.2" if old else "")
        case Integer():
            return _integer(node, shape, name)
        case Number():
            return _number(node, shape, name)
        case Duration():
            return _duration(node, shape, name)
        case Size():
            return _size(node, name)
        case Percent():
            return _percent(node, shape, name)
    assert_never(shape)


def _word(shape: Single) -> str:
    """Return what a value should be, in a few words."""
    match shape:
        case Text():
            return f"a {shape.word}" if shape.word != "text" else "text"
        case Choice():
            return f"one of {', '.join(shape.words)}"
        case _:
            return _WORDS[type(shape)]


def _wrong(node: Node, shape: Single, name: str, hint: str = "") -> UnfitError:
    return UnfitError(Code.WRONG_TYPE, f"{name} is {_word(shape)}, found {describe(node)}", hint)


def _text(node: Scalar, shape: Text, name: str) -> str:
    # a variable may hold digits: what it expands to is text where text is wanted
    if isinstance(node.value, str) or (node.expanded and node.text):
        if node.text or shape.empty:
            return node.text
        raise UnfitError(Code.WRONG_TYPE, f"{name} is empty")
    hint = f'quote it: "{node.text[:60]}"' if node.text else 'write "" for empty text' if shape.empty else ""
    raise _wrong(node, shape, name, hint)


def _choice(node: Scalar, shape: Choice, name: str) -> str:
    if node.text in shape.words or (shape.more and re.fullmatch(shape.more, node.text, re.ASCII)):
        return node.text
    hint = (shape.instead or {}).get(node.text) or ""
    message = f"{name} is one of {', '.join(shape.words)}, found {describe(node)}"
    raise UnfitError(Code.NOT_A_CHOICE, message, hint, known=() if hint else shape.words)


def _integer(node: Scalar, shape: Integer, name: str) -> int:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int):
        hint = "remove the quotes" if isinstance(value, str) and value.isascii() and value.isdigit() else ""
        raise _wrong(node, shape, name, hint)
    if name == "version" and value != shape.minimum:
        hint = f"write version: {shape.minimum}, or install the amqpflow that this file was written for"
        raise UnfitError(Code.UNKNOWN_VERSION, f"version {value} of the topology language is not supported", hint)
    if not shape.minimum <= value <= shape.maximum:
        raise UnfitError(Code.OUT_OF_RANGE, f"{name} is from {shape.minimum} to {shape.maximum}, found {node.text}")
    return value


def _number(node: Scalar, shape: Number, name: str) -> float:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(node, shape, name)
    if not (math.isfinite(value) and shape.minimum <= value <= shape.maximum):
        raise UnfitError(Code.OUT_OF_RANGE, f"{name} is from {shape.minimum} to {shape.maximum}, found {node.text}")
    return value


def _duration(node: Scalar, shape: Duration, name: str) -> int:
    try:
        milliseconds = parse_duration(node.text)
    except ValueError as error:
        raise UnfitError(Code.NOT_A_DURATION, f"{name}: {error}") from None
    if milliseconds < shape.minimum:
        raise UnfitError(Code.OUT_OF_RANGE, f"{name} is at least {format_duration(shape.minimum)}, found {node.text}")
    if milliseconds > shape.maximum:
        most = f"{format_duration(shape.maximum)} ({shape.maximum} ms)"
        raise UnfitError(Code.OUT_OF_RANGE, f"{name} is at most {most}, RabbitMQ's longest; found {node.text}")
    return milliseconds


def _size(node: Scalar, name: str) -> int:
    try:
        size = parse_size(node.text)
    except ValueError as error:
        raise UnfitError(Code.NOT_A_SIZE, f"{name}: {error}") from None
    if not 0 < size < 2**53:
        raise UnfitError(Code.OUT_OF_RANGE, f"{name} is at least 1B and less than 8388608GiB, found {node.text}")
    return size


def _percent(node: Scalar, shape: Percent, name: str) -> Fraction:
    try:
        share = parse_percentage(node.text)
    except ValueError:
        hint = f"write {node.text}%" if isinstance(node.value, int) else "for example 10%"
        raise UnfitError(Code.WRONG_TYPE, f"{name} is a percentage, found {describe(node)}", hint) from None
    if share * 100 > shape.maximum:
        raise UnfitError(Code.OUT_OF_RANGE, f"{name} is from 0% to {shape.maximum}%, found {node.text}")
    return share
