"""One journal on the disk: appended to by one process, and read by any."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from amqpflow.errors import RefusedError
from amqpflow.parking.journal import (
    JournalHead,
    JournalState,
    UnreadableJournalError,
    is_finished,
    read_head,
    read_journal,
)
from amqpflow.services.loading import durable_file

_LONGEST_HEAD = 1 << 20  #: bytes
_LAST = 1 << 16  #: bytes at the end of a file in which its last line is looked for
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class JournalFile:
    """One journal, open for writing by one process, and locked. `create` and `take` open it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.failed: OSError | None = None  #: why nothing more can be written
        self.is_torn = False  #: the line that failed may be on the disk, in part or whole
        # a task that is cancelled leaves its thread writing: closing waits for it, or the write would go to
        # whatever file the process opens next under the same descriptor
        self._lock = Lock()
        self._closed = False
        self._fd = fd

    @classmethod
    def create(cls, path: Path) -> JournalFile:
        """Make a new one. Raises OSError."""
        fd = durable_file.create(path, os.O_RDWR | os.O_APPEND)
        if not durable_file.lock(fd):
            os.close(fd)
            raise BlockingIOError(errno.EWOULDBLOCK, "another process has locked it")
        return cls(path, fd)

    @classmethod
    def take(cls, path: Path) -> tuple[JournalFile, JournalState] | None:
        """Take over a journal, and read it; None when a process is writing it.

        Raises RefusedError: another user owns or may write it. UnreadableJournalError, OSError: it cannot be read.
        """
        fd, is_free = _open(path, os.O_RDWR | os.O_APPEND), False
        try:
            if not (is_free := durable_file.lock(fd)):
                return None
            with os.fdopen(os.dup(fd), "rb") as file:
                state = read_journal(file)
            os.ftruncate(fd, state.size)  # a line that was cut off was never acted on
        except BaseException:
            is_free = False
            raise
        finally:
            if not is_free:
                os.close(fd)
        return cls(path, fd), state

    def write(self, data: bytes) -> None:
        """Append, and return when it is on the disk; a line that was written in part is cut off again. Raises OSError:
        the disk refused it, or the journal was closed.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the journal was closed")
            if self.failed is not None:
                raise self.failed
            size = os.fstat(self._fd).st_size
            try:
                durable_file.append(self._fd, data)
            except OSError as error:
                self.failed = error
                try:
                    os.ftruncate(self._fd, size)
                except OSError:
                    self.is_torn = True
                raise

    async def written(self, data: bytes) -> None:
        await asyncio.to_thread(self.write, data)

    def discard(self) -> None:
        """Remove a journal that says nothing."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let others write it, after the write that is under way."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)


@dataclass(frozen=True, slots=True)
class JournalEnds:
    """The first line and the last of a journal."""

    head: JournalHead
    last: bytes

    @property
    def is_finished(self) -> bool:
        return is_finished(self.last)


def read_ends(path: Path) -> JournalEnds | None:
    """Read the first line and the last; None when the first is not whole: nothing was sent. Raises as `take`."""
    with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
        first = file.readline(_LONGEST_HEAD)
        return JournalEnds(read_head(first), _last_line(file)) if first.endswith(b"\n") else None


def read_whole(path: Path) -> JournalState:
    """Read a journal. Raises RefusedError, UnreadableJournalError, FileNotFoundError."""
    try:
        with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
            return read_journal(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableJournalError(str(error.strerror)) from error


def require_own(path: Path, found: os.stat_result) -> None:
    """Raise RefusedError when another user owns, or may write, a journal or the directory of journals."""
    what = "the directory of journals" if stat.S_ISDIR(found.st_mode) else "the journal"
    why = "a journal decides what is not sent again, so no other user may write it"
    if found.st_uid != os.geteuid():
        raise RefusedError(
            f"{what} {path} belongs to another user (uid {found.st_uid}): {why}",
            hint="run as that user, move it away, or name another directory with `journal`",
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise RefusedError(
            f"{what} {path} can be written by other users (mode {stat.S_IMODE(found.st_mode):04o}): {why}",
            hint=f"chmod go-w {path}",
        )


def _open(path: Path, flags: int) -> int:
    """Open a journal that exists. Raises OSError; RefusedError: another user owns or may write it."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RefusedError(
                f"the journal {path} is a symbolic link; its target may be any user's file", hint="move it away"
            ) from error
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableJournalError("it is not a file")
        require_own(path, found)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _last_line(file: io.BufferedReader) -> bytes:
    """Return the last line, when it is whole and short; else b""."""
    size = file.seek(0, os.SEEK_END)
    begin = file.seek(max(0, size - _LAST))
    data = file.read()
    if not data.endswith(b"\n"):
        return b""
    before = data.rfind(b"\n", 0, -1)
    return data[before + 1 :] if before >= 0 or begin == 0 else b""
