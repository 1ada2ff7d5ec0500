"""Keep rows on disk until all are read: a slow reader of the output must not block the broker."""

from __future__ import annotations

import gzip
import json
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from typing import IO, TYPE_CHECKING

from amqpflow.parking.age_order import AgeOrder

if TYPE_CHECKING:
    from amqpflow.services.parked.listing import ParkedRow

_IN_MEMORY = 1024 * 1024  #: bytes, compressed


class Spool:
    """Stores rows on disk and returns them any number of times. Use as a context manager."""

    def __init__(self) -> None:
        self.count = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, mode="w+b")  # noqa: SIM115
        self._packed = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=1, mtime=0)
        self._ages: dict[str, AgeOrder] = {}
        self._sorted: IO[bytes] | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._packed.close()
        self._file.close()
        if self._sorted is not None:
            self._sorted.close()

    def add(self, row: ParkedRow) -> None:
        """Add a row. Rows of one parking queue are consecutive."""
        self.count += 1
        self._ages.setdefault(row.parking_queue, AgeOrder()).add(row.priority, row.failed_at)
        self._packed.write(_line(row))

    def sort_by_age(self, queues: Collection[str]) -> None:
        """Sort the rows of these parking queues by age; no row is added afterwards."""
        orders = {name: age.order() for name, age in self._ages.items() if name in queues}
        self._ages.clear()
        if not any(orders.values()):
            return
        self._sorted = tempfile.TemporaryFile()  # noqa: SIM115
        # what is packed can be read from its beginning alone
        for queue, group in groupby(self._read(self._unpacked()), key=lambda row: row.parking_queue):
            order = orders.get(queue)
            if order is None:
                self._sorted.writelines(map(_line, group))
                continue
            with tempfile.TemporaryFile() as plain:
                begins = array("Q")
                for row in group:
                    begins.append(plain.tell())
                    plain.write(_line(row))
                for number in order:
                    plain.seek(begins[number])
                    self._sorted.write(plain.readline())

    def rows(self) -> Iterator[ParkedRow]:
        """Yield all rows in order."""
        if self._sorted is None:
            return self._read(self._unpacked())
        self._sorted.seek(0)
        return self._read(self._sorted)

    def _unpacked(self) -> Iterator[bytes]:
        self._packed.close()
        self._file.seek(0)
        with gzip.GzipFile(fileobj=self._file, mode="rb") as unpacked:
            yield from unpacked

    @staticmethod
    def _read(lines: Iterable[bytes]) -> Iterator[ParkedRow]:
        from amqpflow.services.parked.listing import ParkedRow

        for line in lines:
            yield ParkedRow(**json.loads(line))


def _line(row: ParkedRow) -> bytes:
    return json.dumps(asdict(row)).encode("ascii") + b"\n"
