"""Write an export so that what it holds is on the disk, and read it back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from amqpflow.errors import AmqpflowError, Refused
from amqpflow.parking.export import (
    ExportedMessage,
    ExportEnd,
    ExportHead,
    end_line,
    head_line,
    message_line,
    read_line,
)
from amqpflow.parking.parked import ParkedMessage

_HEAD, _END = "head.json", "end.json"
LONGEST_LINE = 1 << 30  #: characters; RabbitMQ takes messages of at most 512 MiB


class ExportWriter:
    """
    Writes one export, for its owner's eyes only (mode 600).

    `at_once`: the file has its name from the beginning, for a discard, whose messages must be found there if it is
    killed. Else it gets its name when it is finished, and never exists in part.

    Raises:
        Refused: the file exists. AmqpflowError: it cannot be written.
    """

    def __init__(self, path: str, head: ExportHead, *, at_once: bool) -> None:
        self.path = Path(path)
        self.count = 0
        self._at_once = at_once
        self._written = self.path if at_once else self.path.with_name(f".{self.path.name}.{uuid4().hex[:8]}.partial")
        if self.path.exists():
            raise Refused(f"{path} exists", hint="name another file; nothing was done")
        with _disk(self.path):
            descriptor = os.open(self._written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file: IO[str] = os.fdopen(descriptor, "w", encoding="ascii", newline="\n")
            self._file.write(head_line(head, at=int(time.time() * 1000)))
            if at_once:
                self.checkpoint()
                _sync_directory(self.path)

    def write(self, parked: ParkedMessage) -> None:
        """One more message; on the disk after the next `checkpoint` or `finish`."""
        with _disk(self.path):
            self.count += 1
            self._file.write(message_line(parked, self.count))

    def checkpoint(self) -> None:
        """What was written so far survives the loss of power."""
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
                    os.link(self._written, self.path)
                except FileExistsError:
                    raise Refused(f"{self.path} exists meanwhile", hint="nothing was done") from None
                self._written.unlink()
            _sync_directory(self.path)

    def abandon(self) -> None:
        """End without `finish`: what has no name yet is removed, and so is what holds no message."""
        if not self._file.closed:
            try:
                self._file.close()
            except OSError:
                pass
        if not (self._at_once and self.count):
            self._written.unlink(missing_ok=True)


class DirectoryWriter:
    """
    Writes one export as a directory, a message a file, which gets its name when it is whole. For its owner's eyes only.

    Raises:
        Refused: it exists. AmqpflowError: it cannot be written.
    """

    def __init__(self, path: str, head: ExportHead) -> None:
        self.path = Path(path)
        self.count = 0
        self._written = self.path.with_name(f".{self.path.name}.{uuid4().hex[:8]}.partial")
        if self.path.exists():
            raise Refused(f"{path} exists", hint="name another directory; nothing was done")
        with _disk(self.path):
            self._written.mkdir(mode=0o700)
            self._put(_HEAD, head_line(head, at=int(time.time() * 1000)))

    def write(self, parked: ParkedMessage) -> None:
        """One more message, on the disk."""
        with _disk(self.path):
            self.count += 1
            self._put(f"{self.count:08}.json", message_line(parked, self.count))

    def finish(self) -> None:
        """Write the end, and give the directory its name."""
        with _disk(self.path):
            self._put(_END, end_line(self.count))
            _sync_directory(self._written / _END)
            if self.path.exists():
                raise Refused(f"{self.path} exists meanwhile", hint="nothing was done")
            self._written.rename(self.path)
            _sync_directory(self.path)

    def abandon(self) -> None:
        """End without `finish`: nothing is left."""
        shutil.rmtree(self._written, ignore_errors=True)

    def _put(self, name: str, text: str) -> None:
        descriptor = os.open(self._written / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)


def export_writer(path: str, head: ExportHead) -> ExportWriter | DirectoryWriter:
    """A path that ends in a slash is a directory to be made. Raises as the writers do."""
    return DirectoryWriter(path, head) if path.endswith("/") else ExportWriter(path, head, at_once=False)


def _files(path: Path) -> Iterator[Path]:
    """The files of an export in the order of its lines; what else somebody put into the directory is passed over."""
    yield path / _HEAD
    yield from sorted(each for each in path.glob("*.json") if each.stem.isdecimal())
    if (path / _END).exists():
        yield path / _END


def read_export(path: str) -> Iterator[tuple[int, ExportHead | ExportedMessage | ExportEnd | str]]:
    """
    The lines of an export with their numbers, one after the other; a text instead of a line says what is wrong with it.

    A last line without an end is left out: the writer was killed over it, and its message is where it was.

    Raises:
        AmqpflowError: the file cannot be read.
    """
    number = 0
    for each in _files(Path(path)) if Path(path).is_dir() else (Path(path),):
        with _disk(each, "read"), each.open(encoding="ascii", errors="surrogateescape", newline="\n") as file:
            while text := file.readline(LONGEST_LINE):
                number += 1
                if not text.endswith("\n"):
                    return
                try:
                    line = read_line(text)
                except ValueError as error:
                    yield number, str(error)
                else:
                    yield number, line


@contextmanager
def _disk(path: Path, verb: str = "write") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AmqpflowError(f"cannot {verb} {path}: {error.strerror or error}") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
