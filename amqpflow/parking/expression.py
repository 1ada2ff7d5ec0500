"""A JMESPath expression over one parked message: `{headers, properties, body, record}`.

The expression is the user's and is checked before anything is read. The message is anybody's: whatever it holds, the
answer is yes, no, or "cannot be evaluated", never an error. https://jmespath.org/specification.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from amqpflow.model.decompression import decompress
from amqpflow.model.json_values import json_value, picked, rfc3339

from .parked import ParkedMessage

BODY_LIMIT = 8 * 1024 * 1024
"""Bytes of a body, compression undone, that an expression sees: parsed JSON takes ten times its size and more."""

_MAY_MEAN_BODY = ("body", "@", "*", "\\", "&")


class Expression:
    """A JMESPath expression.

    Raises:
        ValueError: it is not an expression; the text says what is wrong, and at which column.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled = _compile(text)
        self._reads_body = any(each in text for each in _MAY_MEAN_BODY)

    def matches(self, parked: ParkedMessage) -> bool:
        """Is it true of the message? As JMESPath has it: false, null, "", [] and {} are not, everything else is.

        Raises:
            ValueError: it cannot be evaluated: a function got a value that it does not take, or the body is too large.
        """
        try:
            found = self._compiled.search(document(parked, body=self._reads_body))
        except RecursionError:
            raise ValueError("nested too deeply") from None
        except (ValueError, TypeError, ArithmeticError, AttributeError, KeyError, IndexError) as error:
            raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error
        return not (found is None or found is False or found in ("", [], {}))


def document(parked: ParkedMessage, *, body: bool = True) -> dict[str, Any]:
    """What an expression sees of a message.

    `body` is parsed when it is JSON, else text when it is UTF-8, else null; gzip and deflate are undone. `record` has
    what `parked list` knows, whoever parked it.

    Raises:
        ValueError: the body is larger than BODY_LIMIT.
    """
    properties = parked.delivery.properties
    return {
        "headers": json_value(properties.headers or {}),
        "properties": json_value(properties.present()),
        "body": _body(parked) if body else None,
        "record": {
            **picked(parked, "id", "queue", "reason", "detail", "attempts", "replays"),
            "parking_queue": parked.delivery.queue,
            **picked(parked, "error_type", "error_message", "error_location", "fingerprint"),
            **picked(parked, "exchange", "routing_key"),
            "first_failed_at": rfc3339(parked.first_failed_at),
            "failed_at": rfc3339(parked.failed_at),
            "body_bytes": len(parked.delivery.body),
        },
    }


def _body(parked: ParkedMessage) -> Any:
    data, encoding = parked.delivery.body, parked.delivery.properties.content_encoding
    try:
        data = decompress(data, encoding, BODY_LIMIT)
    except ValueError:
        return None
    if len(data) > BODY_LIMIT:
        raise ValueError(f"the body is larger than {BODY_LIMIT} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _compile(text: str) -> Any:
    import jmespath
    from jmespath.exceptions import EmptyExpressionError, JMESPathError, ParseError

    try:
        compiled = jmespath.compile(text)
    except EmptyExpressionError:
        raise ValueError("it is empty") from None
    except ParseError as error:
        column = error.lex_position + 1
        what = "it ends too early" if column > len(text) else f"unexpected {text[column - 1 :][:20]!r}"
        if "delimiter" in str(getattr(error, "message", "")):
            what = f"{text[column - 1]} is not closed"
        raise ValueError(f"column {column}: {what}\n  {text}\n  {' ' * (column - 1)}^") from None
    except JMESPathError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    problems = list(_problems(compiled.parsed, text))
    if problems:
        raise ValueError("; ".join(problems))
    return compiled


def _problems(parsed: Any, text: str) -> Iterator[str]:
    """Functions that do not exist, or take another number of arguments: jmespath tells when it is too late."""
    from jmespath.functions import Functions

    open_nodes = [parsed]
    while open_nodes:
        node = open_nodes.pop()
        open_nodes += [each for each in node.get("children", ()) if isinstance(each, dict)]
        if node.get("type") != "function_expression":
            continue
        name, given = node["value"], len(node["children"])
        known = Functions.FUNCTION_TABLE
        column = text.find(name) + 1
        if name not in known:
            yield f"column {column}: there is no function {name}; there are {', '.join(sorted(known))}"
            continue
        signature = known[name]["signature"]
        variadic = bool(signature) and signature[-1].get("variadic", False)
        if given < len(signature) or (given > len(signature) and not variadic):
            least = "at least " if variadic else ""
            yield f"column {column}: {name}() takes {least}{len(signature)} arguments, not {given}"
