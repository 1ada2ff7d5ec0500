"""Rows that wait on the disk until all were read: a slow reader of our output must not hold up the broker."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqpflow.services.parked_list import ParkedRow

_IN_MEMORY = 1024 * 1024  #: bytes, compressed


class Spool:
    """Takes rows, and gives them back as often as they are asked for. Use as a context manager."""

    def __init__(self) -> None:
        self.count = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, mode="w+b")  # noqa: SIM115
        self._packed = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=1, mtime=0)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._packed.close()
        self._file.close()

    def add(self, row: ParkedRow) -> None:
        """One more."""
        self.count += 1
        self._packed.write(json.dumps(asdict(row)).encode("ascii") + b"\n")

    def rows(self) -> Iterator[ParkedRow]:
        """All of them, in their order."""
        from amqpflow.services.parked_list import ParkedRow

        self._packed.close()
        self._file.seek(0)
        with gzip.GzipFile(fileobj=self._file, mode="rb") as unpacked:
            for line in unpacked:
                yield ParkedRow(**json.loads(line))
