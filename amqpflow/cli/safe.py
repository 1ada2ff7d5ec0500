"""Texts for a terminal: foreign text is neutralized, and arguments of the library are named as options.

The library names arguments, as in `prefetch`; the command line names its options for them.
"""

from __future__ import annotations

import re

from amqpflow.model.safe import safe as safe

_SAME = (
    "again",
    "allow",
    "attempts",
    "ca_file",
    "cert_file",
    "duplicates",
    "exact",
    "in_doubt",
    "journal",
    "keep",
    "key_file",
    "limit",
    "lock_timeout",
    "management_url",
    "match",
    "max_depth",
    "newer_than",
    "older_than",
    "prune",
    "queue",
    "resume",
    "sample",
    "stop_if_reparked",
    "strip",
    "to",
    "unverified",
    "wait",
)
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in _SAME} | {
    "fingerprints": "--fingerprint",
    "from_queues": "--from",
    "headers": "--header",
    "ids": "--id",
    "queues": "--queue",
    "reasons": "--reason",
}
_ARGUMENT = re.compile(rf"`({'|'.join(OPTIONS)})`")


def with_options(text: object) -> str:
    """Return a text of the library for the command line: what `lock_timeout` is in Python is --lock-timeout there."""
    return _ARGUMENT.sub(lambda found: OPTIONS[found[1]], str(text))


def said(text: object, *, multiline: bool = False) -> str:
    """Return a text of the library for a terminal: neutralized, with options instead of arguments."""
    return safe(with_options(text), multiline=multiline)
