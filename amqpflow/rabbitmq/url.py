"""Check AMQP and management URLs: say what is wrong with one, and show no password."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from amqpflow.errors import UsageError

PORTS = {"amqp": 5672, "amqps": 5671}
DEFAULT_HEARTBEAT = 5  #: seconds: a dead connection is given up after 10, by RabbitMQ after 10 to 15
COMMAND_HEARTBEAT = 20  #: seconds, of commands: they sometimes compute for long, and delay no other work
_SEPARATOR = re.compile(r"\s*,\s*(?=amqps?://)", re.IGNORECASE)  # a comma may be in a password
_USER = re.compile(r"(?:(?!%3a)[^:/?#@,;\s])+", re.IGNORECASE)  # as far as it is surely not a password
_AROUND = " \t\r\n\v\f\x00\ufeff"  # what editors, `echo` and `base64` leave around a value
_INSIDE = re.compile(r"[\s\x00-\x1f\x7f\ufeff\u200b\u2060]")
_KINDS = {" ": "a space", "\t": "a tab", "\n": "a line break", "\r": "a line break"}


def checked_urls(text: str, source: str) -> tuple[str, ...]:
    """Return the AMQP URLs in a text, one for each node; white space around them is removed.

    Args:
        text: one URL, or several with commas between them.
        source: its name for the user, in errors.

    Raises:
        UsageError: one of them is malformed; the text says where, and shows no password.
    """
    stripped = _stripped(text, source, "amqp://USER:PASSWORD@HOST:PORT/VHOST")
    _require_no_white_space(_SEPARATOR.sub(lambda found: "," * len(found[0]), text), source)
    urls = tuple(_checked(each, source, tuple(PORTS)) for each in _SEPARATOR.split(stripped))
    if len({each.partition(":")[0] for each in urls}) > 1:
        raise UsageError(f"{source} mixes amqp:// and amqps://", hint="give all nodes of the cluster the same scheme")
    return urls


def checked_management_url(text: str, source: str) -> tuple[str]:
    """Return the management URL in a text. Arguments and errors as `checked_urls`."""
    stripped = _stripped(text, source, "http://USER:PASSWORD@HOST:PORT")
    _require_no_white_space(text, source)
    return (_checked(stripped, source, ("http", "https")),)


def heartbeat_of(query: str) -> int | None:
    """Return the heartbeat in the query of an AMQP URL, in seconds; None where it names none.

    Raises:
        ValueError: the heartbeat is not a number of seconds, or more than AMQP can carry.
    """
    given = parse_qs(query, keep_blank_values=True).get("heartbeat")
    if given is None:
        return None
    text = given[-1]
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) >= 65_535:
        raise ValueError(f"heartbeat={text[:32]!r} is not a number of seconds from 0 to 65534")
    return int(text)


def redact(url: str) -> str:
    """Return a URL without its password and query, whether it is well-formed or not.

    All in front of the last @ is taken for user and password, since a password that was not percent-encoded moves the
    place where a parser sees the host; of that the user is shown.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        scheme, rest = "", url.strip()
    secret, _, where = rest.rpartition("@")
    user = _USER.match(secret)
    shown = f"{user[0]}:***@" if user else ""
    return f"{scheme}{separator}{shown}{re.split('[?#]', where)[0]}"


def _stripped(text: str, source: str, form: str) -> str:
    stripped = text.strip(_AROUND)
    if not stripped:
        raise UsageError(f"{source} is empty: it is not a URL of the form {form}")
    return stripped


def _require_no_white_space(text: str, source: str) -> None:
    start, end = len(text) - len(text.lstrip(_AROUND)), len(text.rstrip(_AROUND))
    if found := _INSIDE.search(text, start, end):
        kind = _KINDS.get(found[0], f"the character U+{ord(found[0]):04X}")
        raise UsageError(
            f"{source} has {kind} at character {found.start() + 1}",
            hint="remove it; one that belongs to a password or a virtual host must be percent-encoded (%20)",
        )


def _checked(url: str, source: str, schemes: tuple[str, ...]) -> str:
    scheme, colon, rest = url.partition(":")
    url = f"{scheme.lower()}{colon}{rest}"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ","
        valid = parts.scheme in schemes and "," not in host and (parts.port is None or parts.port > 0)
        # what a parser takes for path, query or fragment is the rest of a password that has a / ? or # in it
        valid = valid and "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"{source} is not a URL of the form {schemes[0]}://USER:PASSWORD@HOST:PORT"
            + ("/VHOST" if "amqp" in schemes else ""),
            hint=_hint(url, schemes),
        )
    try:
        heartbeat_of(parts.query if "amqp" in schemes else "")
    except ValueError as error:
        hint = f"write ?heartbeat={DEFAULT_HEARTBEAT}, or ?heartbeat=0 for no heartbeats"
        raise UsageError(f"{source}: {error}", hint=hint) from None
    return url


def _hint(url: str, schemes: tuple[str, ...]) -> str:
    scheme = url.partition("://")[0]
    if url[0] in "\"'" and url[0] == url[-1]:
        return "remove the quotation marks around it"
    if scheme in ("http", "https") and "amqp" in schemes:
        return "http:// and https:// are the management API: give it as the management URL"
    if scheme in PORTS and "http" in schemes:
        return (
            "amqp:// and amqps:// are AMQP: the management API is http:// or https://, usually on port 15672 or 15671"
        )
    return "characters such as / @ # in a password or a virtual host must be percent-encoded"
