"""Keep the record of a restore beside its export, for one restore at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from amqpflow.errors import AmqpflowError, RefusedError
from amqpflow.parking.restore_record import (
    Restored,
    RestorePlace,
    UnreadableRecordError,
    forgotten_line,
    head_line,
    publishing_line,
    read_restored,
    restored_line,
    unpublished_line,
)
from amqpflow.services.loading import durable_file

_LineOf = Callable[[RestorePlace, str, Sequence[str]], bytes]
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@dataclass
class RestoreRecord:
    """The messages that were restored into this place before, and now. A record without a file remembers nothing."""

    place: RestorePlace
    before: Restored
    path: str = ""
    file: IO[bytes] | None = None
    keep: int | None = 0  #: bytes of the file that stay; None: it was written since
    first: bytes = b""  #: a line to write behind them, before all others
    _new: dict[tuple[_LineOf, str], list[str]] = field(default_factory=dict, init=False)

    def publishing(self, queue: str, check: str) -> None:
        """Note that this message is about to be published to this queue. `write` before it is."""
        self._note(publishing_line, queue, check)

    def unpublished(self, queue: str, check: str) -> None:
        """Note that it was not published after all, or that RabbitMQ refused it."""
        self._note(unpublished_line, queue, check)

    def confirmed(self, queue: str, check: str) -> None:
        """Note that RabbitMQ has confirmed this message in this queue."""
        self._note(restored_line, queue, check)

    def _note(self, line: _LineOf, queue: str, check: str) -> None:
        self._new.setdefault((line, queue), []).append(check)

    def write(self) -> None:
        """Write what was noted to the disk. Raises AmqpflowError: it cannot be written."""
        lines = [self.first, *(line(self.place, queue, checks) for (line, queue), checks in self._new.items())]
        self.first, self._new = b"", {}
        if self.file is None:
            return
        try:
            if self.keep is not None:
                self.file.truncate(self.keep)
                self.file.seek(self.keep)
            durable_file.append(self.file.fileno(), b"".join(lines))
            if self.keep == 0:
                durable_file.sync_directory(Path(self.path).absolute().parent)
        except OSError as error:
            raise AmqpflowError(f"cannot write {self.path}: {error.strerror}") from error
        self.keep = None


@contextmanager
def open_record(export: str | None, export_id: str, place: RestorePlace, *, again: bool) -> Iterator[RestoreRecord]:
    """Open the record beside an export (None: it came through a pipe), and keep other restores of that export away.

    Raises:
        RefusedError: another restore of the export is running; the record cannot be used; or it names the same cluster
            under another address. AmqpflowError: it cannot be written.
    """
    if export is None:
        yield RestoreRecord(place, Restored())
        return
    path = export.rstrip("/") + ".restored"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AmqpflowError(
            f"cannot write {path}: {error.strerror}",
            hint="restored messages are recorded beside the export: copy it to a directory that can be written",
        ) from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            is_free = durable_file.lock(file.fileno())
        except OSError as error:
            # a file system without locks: on one broker the reading lock of the queues keeps two restores apart
            if error.errno not in _NO_LOCKS:
                raise AmqpflowError(f"cannot lock {path}: {error.strerror}") from error
            is_free = True
        if not is_free:
            raise RefusedError(f"another restore of {export} is running; nothing was done")
        yield _read(file, path, export_id, place, again)


def _read(file: IO[bytes], path: str, export_id: str, place: RestorePlace, again: bool) -> RestoreRecord:
    written = file.read()
    whole = written[: written.rfind(b"\n") + 1]  # a last line without an end was not written whole
    before, first = Restored(), head_line(export_id)
    if whole:
        try:
            before = read_restored(whole.splitlines(), export_id, place)
            first = b""
        except UnreadableRecordError as error:
            if not again:
                raise RefusedError(
                    f"the record {path} cannot be used: {error}; nothing was done",
                    hint="`again` forgets it, and restores the messages that are not parked any more",
                ) from None
            whole = b""
    if again:
        before, first = Restored(), first or forgotten_line(place)
    elif before.elsewhere:
        raise RefusedError(
            f"{path} records {sum(before.elsewhere.values())} messages that were restored through "
            f"{' and '.join(before.elsewhere)} into virtual host {place.vhost} of a cluster of the same name, "
            f"{place.cluster or '(none)'}: that can be this broker or another; nothing was done",
            hint="connect through that address to continue that restore; `again` forgets it, and restores what is not "
            "parked any more",
        )
    return RestoreRecord(place, before, path=path, file=file, keep=len(whole), first=first)
