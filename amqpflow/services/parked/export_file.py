"""Write an export to the disk, and read it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from amqpflow.errors import AmqpflowError, RefusedError
from amqpflow.parking.export import (
    Checks,
    Discarded,
    ExportedMessage,
    ExportEnd,
    ExportHead,
    check_of,
    discarded_line,
    end_line,
    head_line,
    message_line,
    read_line,
)
from amqpflow.parking.parked import ParkedMessage
from amqpflow.services.loading import durable_file

_HEAD, _END = "head.json", "end.json"
LONGEST_LINE = 1 << 30  #: bytes; RabbitMQ takes messages of at most 512 MiB
_PIECE = 1 << 20


class ExportWriter:
    """Writes one export, for its owner's eyes only (mode 600).

    `at_once`: the file has its name from the beginning, for a discard, whose messages must be found there if it is
    killed. Else it gets its name when it is finished, and never exists in part.

    Raises:
        RefusedError: the file exists. AmqpflowError: it cannot be written.
    """

    def __init__(self, path: str, head: ExportHead, *, at_once: bool) -> None:
        self.path = Path(path)
        self.count = 0
        self._checks = Checks()
        self._at_once = at_once
        self._written = self.path if at_once else durable_file.partial_name(self.path)
        if self.path.exists():
            raise RefusedError(f"{path} already exists", hint="name another file; nothing was done")
        with _disk(self.path):
            descriptor = durable_file.create(self._written)
            self._file: IO[str] = os.fdopen(descriptor, "w", encoding="ascii", newline="\n")
            self._file.write(head_line(head, at=int(time.time() * 1000)))
            if at_once:
                self.checkpoint()
                durable_file.sync_directory(self.path.absolute().parent)

    def write(self, parked: ParkedMessage) -> None:
        """Write a message, which is on the disk after the next `checkpoint` or `finish`."""
        with _disk(self.path):
            self.count += 1
            self._checks.add(check_of(parked))
            self._file.write(message_line(parked, self.count))

    def discarded(self) -> None:
        """Write, to the disk, that RabbitMQ has taken the acks of all messages so far."""
        with _disk(self.path):
            self._file.write(discarded_line(self.count, self._checks))
        self.checkpoint()

    def checkpoint(self) -> None:
        """Make what was written so far survive a loss of power."""
        with _disk(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Write the end, and give the file its name."""
        with _disk(self.path):
            self._file.write(end_line(self.count))
            self.checkpoint()
            self._file.close()
            if self._at_once and not self.count:
                self._written.unlink()
            elif not self._at_once:
                try:
                    _give_name(self._written, self.path)
                except FileExistsError:
                    raise RefusedError(f"{self.path} was created meanwhile", hint="nothing was done") from None
            durable_file.sync_directory(self.path.absolute().parent)

    def abandon(self) -> None:
        """End without `finish`, and remove a file that has no name yet or no message."""
        if not self._file.closed:
            try:
                self._file.close()
            except OSError:
                pass
        if not (self._at_once and self.count):
            self._written.unlink(missing_ok=True)


class DirectoryWriter:
    """Writes one export as a directory, a file for each message, for its owner's eyes only. It gets its name when
    whole. Raises RefusedError: it exists. AmqpflowError: it cannot be written.
    """

    def __init__(self, path: str, head: ExportHead) -> None:
        self.path = Path(path)
        self.count = 0
        self._written = durable_file.partial_name(self.path)
        if self.path.exists():
            raise RefusedError(f"{path} already exists", hint="name another directory; nothing was done")
        with _disk(self.path):
            self._written.mkdir(mode=0o700)
            self._put(_HEAD, head_line(head, at=int(time.time() * 1000)))

    def write(self, parked: ParkedMessage) -> None:
        with _disk(self.path):
            self.count += 1
            self._put(f"{self.count:08}.json", message_line(parked, self.count))

    def finish(self) -> None:
        with _disk(self.path):
            self._put(_END, end_line(self.count))
            durable_file.sync_directory(self._written)
            if self.path.exists():
                raise RefusedError(f"{self.path} was created meanwhile", hint="nothing was done")
            self._written.rename(self.path)
            durable_file.sync_directory(self.path.absolute().parent)

    def abandon(self) -> None:
        """End without `finish`: nothing is left."""
        shutil.rmtree(self._written, ignore_errors=True)

    def _put(self, name: str, text: str) -> None:
        fd = durable_file.create(self._written / name)
        try:
            durable_file.append(fd, text.encode("ascii"))
        finally:
            os.close(fd)


class StreamWriter:
    """Writes one export to a file that is open already: a pipe, the standard output. Without `finish` it has no end
    line, by which its reader sees that it is not whole. Raises AmqpflowError: it cannot be written.
    """

    def __init__(self, file: IO[bytes], head: ExportHead) -> None:
        self.count = 0
        self._file = file
        self._put(head_line(head, at=int(time.time() * 1000)))

    def write(self, parked: ParkedMessage) -> None:
        self.count += 1
        self._put(message_line(parked, self.count))

    def finish(self) -> None:
        self._put(end_line(self.count))
        with _disk("the export"):
            self._file.flush()

    def abandon(self) -> None:
        """Do nothing: there is nothing to remove."""

    def _put(self, text: str) -> None:
        with _disk("the export"):
            self._file.write(text.encode("ascii"))


def export_writer(target: str | IO[bytes], head: ExportHead) -> ExportWriter | DirectoryWriter | StreamWriter:
    """Return the writer for a target; a path that ends in a slash is a new directory. Raises as the writers do."""
    if not isinstance(target, str):
        return StreamWriter(target, head)
    return DirectoryWriter(target, head) if target.endswith("/") else ExportWriter(target, head, at_once=False)


@dataclass(frozen=True, slots=True)
class LineCutOff:
    """The last line of an export has no end: its writer was killed over it, or it was not copied whole."""


Line = (
    ExportHead | ExportedMessage | Discarded | ExportEnd | LineCutOff | str
)  #: a text says what is wrong with the line


def _files(path: Path) -> Iterator[Path]:
    """Yield the files of an export in the order of its lines; other files in the directory are passed over."""
    yield path / _HEAD
    yield from sorted(each for each in path.glob("*.json") if each.stem.isdecimal())
    if (path / _END).exists():
        yield path / _END


def read_export(source: str | IO[bytes]) -> Iterator[tuple[int, Line]]:
    """Read the lines of an export with their numbers, one by one, from a path or from a file that can be rewound.

    No line is left out. Each file of a directory holds one line, whose end it may lack: it was written whole.

    Raises:
        AmqpflowError: the file cannot be read.
    """
    if not isinstance(source, str):
        source.seek(0)
        yield from enumerate(_lines(source), 1)
    elif not Path(source).is_dir():
        with _disk(Path(source), "read"), Path(source).open("rb") as file:
            yield from enumerate(_lines(file), 1)
    else:
        number = 0
        for each in _files(Path(source)):
            with _disk(each, "read"), each.open("rb") as file:
                for line in _lines(file, ended=True):
                    number += 1
                    yield number, line


def _lines(file: IO[bytes], *, ended: bool = False) -> Iterator[Line]:
    while text := file.readline(LONGEST_LINE + 1):
        whole = text.endswith(b"\n")
        if not whole and len(text) > LONGEST_LINE:
            while text and not text.endswith(b"\n"):
                text = file.readline(_PIECE)
            yield f"it is longer than {LONGEST_LINE} bytes, longer than any message"
            continue
        try:
            line = read_line(text.decode("ascii", "surrogateescape"))
        except ValueError as error:
            yield str(error) if whole or ended else LineCutOff()
        else:
            # a message whose line has no end never left its queue; an end is an end, whatever an editor took off it
            yield line if whole or ended or isinstance(line, ExportEnd) else LineCutOff()


def _give_name(written: Path, path: Path) -> None:
    """Give a whole file its name, and never take the name from another file.

    A hard link does both at once. Where there are none (vfat, some network file systems) the name is taken by an empty
    file, which is then replaced: killed in between, it is empty, and a restore refuses it.

    Raises:
        FileExistsError: the name is taken. OSError: the disk refused.
    """
    try:
        os.link(written, path)
    except FileExistsError:
        raise
    except OSError:
        os.close(durable_file.create(path))
        written.rename(path)
    else:
        written.unlink()


@contextmanager
def _disk(path: Path | str, verb: str = "write") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AmqpflowError(f"cannot {verb} {path}: {error.strerror or error}") from error
