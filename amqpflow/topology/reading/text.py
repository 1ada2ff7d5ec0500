"""Bytes of a file -> text: UTF-8, with or without a byte order mark, and nothing else."""

from __future__ import annotations

import codecs

from amqpflow.model.diagnostic import Place
from amqpflow.topology.language.codes import Code

from .document import MAX_BYTES
from .problems import Problems

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(data: bytes, problems: Problems) -> str | None:
    """Return the text of a file, None when it has none (then said)."""
    start = Place(file=problems.file)
    if len(data) > MAX_BYTES:
        hint = "write several files; validate and apply take them together"
        problems.error(Code.TOO_LARGE, start, f"the file is larger than {MAX_BYTES // 1024**2} MiB", hint)
        return None
    if data.startswith(_UTF16) or b"\0" in data:
        known = "UTF-16" if data.startswith(_UTF16) else "binary"
        problems.error(Code.NOT_TEXT, start, f"the file is {known}, not UTF-8 text", "save it as UTF-8")
        return None
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - before.rfind(b"\n")
        place = Place(file=problems.file, line=before.count(b"\n") + 1, column=column)
        problems.error(Code.NOT_TEXT, place, f"the byte {data[error.start]:#04x} is not UTF-8", "save it as UTF-8")
        return None
