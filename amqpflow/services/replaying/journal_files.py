"""Where journals of replays are kept, and how they are written: appended, and on disk before anything rests on them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import io
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from amqpflow.errors import RefusedError, UsageError
from amqpflow.parking.journal import (
    JournalHead,
    JournalState,
    UnreadableJournalError,
    end_line,
    finished,
    head_line,
    is_finished,
    read_head,
    read_journal,
)
from amqpflow.services.loading.whoami import user

_SUFFIX = ".replay"
BYTES_PER_MESSAGE = 150  #: in a journal, at most, for messages with ids of usual length
_LONGEST_HEAD = 1 << 20  #: bytes
_LAST = 1 << 16  #: bytes at the end of a file in which its last line is looked for
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_HINT = "--journal DIR keeps it elsewhere; nothing was sent"

OnUnreadable = Callable[[Path, str], None]


def default_directory() -> Path:
    """
    `$XDG_STATE_HOME/amqpflow/replays`, by default below `~/.local/state`.

    Raises:
        UsageError: the user has no home directory, as in a container that runs under a number alone.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise UsageError(
            f"there is no place for the journals of replays: the user {user()} has no home directory, and neither HOME "
            "nor XDG_STATE_HOME is set",
            hint="--journal DIR (journal= in Python) or XDG_STATE_HOME names one",
        ) from None
    return base / "amqpflow" / "replays"


class JournalFile:
    """
    One journal, open for writing by one process. `create` and `take` open it.

    Args:
        path: where it is.
        fd: open for reading and writing, and locked.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.failed: OSError | None = None  #: why nothing more can be written
        self.is_torn = False  #: what failed may be on the disk, in part or whole
        # a task that is cancelled leaves its thread writing: closing waits for it, or the write would go to
        # whatever file the process opens next under the same descriptor
        self._lock = Lock()
        self._closed = False
        self._fd = fd

    @classmethod
    def create(cls, path: Path) -> JournalFile:
        """Make a new one. Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(path, fd)

    @classmethod
    def take(cls, path: Path) -> tuple[JournalFile, JournalState] | None:
        """
        Take over a journal that no process is writing, and read it.

        Returns:
            None when a process is writing it.

        Raises:
            RefusedError: another user owns or may write it. UnreadableJournalError, OSError: it cannot be read.
        """
        fd, is_free = _open(path, os.O_RDWR | os.O_APPEND), False
        try:
            if not (is_free := _lock(fd)):
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
        """
        Append, and return when it is on disk; what was written of a line that failed is cut off again.

        Raises:
            OSError: the disk refused it, or the journal was closed.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the journal was closed")
            if self.failed is not None:
                raise self.failed
            size = os.fstat(self._fd).st_size
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
                os.fsync(self._fd)
            except OSError as error:
                self.failed = error
                try:
                    os.ftruncate(self._fd, size)
                except OSError:
                    self.is_torn = True
                raise

    async def written(self, data: bytes) -> None:
        """`write`, in a thread."""
        await asyncio.to_thread(self.write, data)

    def discard(self) -> None:
        """Remove it: it says nothing."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let others write it, after the write that is under way."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)


@dataclass(frozen=True, slots=True)
class _Ends:
    """The first line and the last of a journal."""

    head: JournalHead
    last: bytes

    @property
    def is_finished(self) -> bool:
        return is_finished(self.last)


class Journals:
    """
    A directory of journals.

    Every method raises RefusedError when another user owns or may write the directory or a journal in it: a journal
    decides what is not sent, so no other user may write it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seen: dict[Path, tuple[int, int]] = {}

    def create(self, head: JournalHead, *, messages: int, lines: bytes = b"") -> JournalFile:
        """
        Begin a journal, which is on disk when this returns.

        Args:
            head: which replay.
            messages: how many there may be, to see that there is room.
            lines: what stands behind the first line.

        Raises:
            RefusedError: the directory cannot be made or written to, or there is not enough room.
        """
        path = self.directory / f"{head.id}{_SUFFIX}"
        with _refusing(self.directory):
            _make(self.directory)
            room = os.statvfs(self.directory)
        self._require_ours()
        needed, free = messages * BYTES_PER_MESSAGE + len(lines), room.f_bavail * room.f_frsize
        if needed > free:
            raise RefusedError(
                f"the journal in {self.directory} may take {needed // 1024 + 1} KiB, and {free // 1024} KiB are free",
                hint=_HINT,
            )
        with _refusing(path):
            file = JournalFile.create(path)
            try:
                file.write(head_line(head) + lines)
                _sync_directory(self.directory)
            except BaseException:
                file.close()
                raise
        return file

    def reopen(self, state: JournalState) -> JournalFile:
        """Resume writing a journal. Raises RefusedError, also when another process wrote it since it was read."""
        path = self.directory / f"{state.head.id}{_SUFFIX}"
        self._require_ours()
        with _refusing(path):
            try:
                taken = JournalFile.take(path)
            except UnreadableJournalError as error:
                raise RefusedError(f"the journal {path} cannot be used: {error}", hint=_HINT) from error
        if taken is None:
            raise RefusedError(
                f"another replay is writing its journal {path}", hint="wait until it is done, or stop it"
            )
        file, now = taken
        if now.size != state.size:
            file.close()
            raise RefusedError(
                f"another replay wrote its journal {path} in the meantime",
                hint="amqpflow replay --history shows what is left to resume",
            )
        return file

    def load(self, start: str) -> JournalState:
        """
        Read one journal, by its id or the beginning of it.

        Raises:
            UsageError: there is none, or several. RefusedError: it cannot be read.
        """
        found = [path for path in self._paths() if path.name.startswith(start)]
        if len(found) != 1:
            many = f"{start!r} is the beginning of {len(found)} replays" if found else f"no replay {start!r}"
            raise UsageError(f"{many} in {self.directory}", hint="amqpflow replay --history lists them")
        try:
            return _read(found[0])
        except UnreadableJournalError as error:
            raise RefusedError(
                f"the journal {found[0]} cannot be used: {error}",
                hint="move it away to replay without it: what it had in doubt is sent again then, with equal hop ids",
            ) from error

    def all(self, on_unreadable: OnUnreadable) -> Iterator[JournalState]:
        """Yield every journal, the oldest first; of finished ones only what the first line and the last say."""
        for path in self._paths():
            if (ends := self._ends(path, on_unreadable)) is None:
                continue
            if (state := finished(ends.head, ends.last)) is None:
                try:
                    state = _read(path)
                except FileNotFoundError:
                    continue
                except UnreadableJournalError as error:
                    on_unreadable(path, str(error))
                    continue
            yield state

    def unfinished(
        self,
        wanted: Callable[[JournalHead], bool],
        on_unreadable: OnUnreadable,
        *,
        but: Collection[Path] = (),
    ) -> Iterator[tuple[JournalState, JournalFile | None]]:
        """
        Yield the journals of interrupted replays, each whole, with its file taken over; None for the file when a
        process is writing it. One that was seen to be finished, or is not wanted, is not read again until it changes.
        `but`: these are not looked at.
        """
        for path in self._paths():
            if path in but:
                continue
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            now = (found.st_mtime_ns, found.st_size)
            if self._seen.get(path) == now:
                continue
            ends = self._ends(path, on_unreadable)
            if ends is None or ends.is_finished or not wanted(ends.head):
                self._seen[path] = now
                continue
            try:
                taken = JournalFile.take(path)
                yield (_read(path), None) if taken is None else (taken[1], taken[0])
            except FileNotFoundError:
                continue
            except (UnreadableJournalError, OSError) as error:
                self._seen[path] = now
                on_unreadable(path, str(error))

    def prune(self, before: int | None = None) -> list[str]:
        """
        Remove the journals of finished replays.

        Args:
            before: only of those that began before it, in ms since the epoch.

        Returns:
            Their ids, the oldest first.

        Raises:
            RefusedError: one of them cannot be removed.
        """
        removed = []
        for path in self._paths():
            ends = self._ends(path, lambda *_: None)
            if ends is None or not ends.is_finished or (before is not None and ends.head.at >= before):
                continue
            with _refusing(path):
                path.unlink(missing_ok=True)
            removed.append(ends.head.id)
        if removed:
            with _refusing(self.directory):
                _sync_directory(self.directory)
        return removed

    def _ends(self, path: Path, on_unreadable: OnUnreadable) -> _Ends | None:
        try:
            with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
                first = file.readline(_LONGEST_HEAD)
                if not first.endswith(b"\n"):
                    return None  # its first line was not written out: nothing was sent
                return _Ends(read_head(first), _last_line(file))
        except FileNotFoundError:
            return None
        except UnreadableJournalError as error:
            on_unreadable(path, str(error))
        except OSError as error:
            on_unreadable(path, str(error.strerror))
        return None

    def _require_ours(self) -> None:
        with _refusing(self.directory):
            _require_ours(self.directory.stat(), self.directory)

    def _paths(self) -> list[Path]:
        try:
            _require_ours(self.directory.stat(), self.directory)
            found = [
                (each, path) for path in self.directory.glob(f"*{_SUFFIX}") if (each := _written_at(path)) is not None
            ]
        except (FileNotFoundError, NotADirectoryError):
            return []  # `create` says so
        except OSError as error:
            raise RefusedError(
                f"the journals in {self.directory} cannot be read: {error.strerror}",
                hint="--journal DIR names another directory",
            ) from error
        return [path for _, path in sorted(found)]


def journals_in(directory: str | Path | None) -> Journals:
    """The journals in a directory, or in the default one."""
    return Journals(Path(directory) if directory is not None else default_directory())


def closing_line(state: JournalState, by: str) -> bytes:
    """The last line of an interrupted replay's journal that another replay finished."""
    return end_line({"complete": True, "finished_by": by, **state.totals()})


def _written_at(path: Path) -> float | None:
    """When it was written last; None: another process removed it just now. The others are there all the same."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return None


def _read(path: Path) -> JournalState:
    try:
        with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
            return read_journal(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableJournalError(str(error.strerror)) from error


def _open(path: Path, flags: int) -> int:
    """Open a journal that is there. Raises OSError; RefusedError: another user owns or may write it."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RefusedError(
                f"the journal {path} is a symbolic link; where it leads may be anybody's file", hint="move it away"
            ) from error
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableJournalError("it is not a file")
        _require_ours(found, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_ours(found: os.stat_result, path: Path) -> None:
    what = "the directory of journals" if stat.S_ISDIR(found.st_mode) else "the journal"
    if found.st_uid != os.geteuid():
        raise RefusedError(
            f"{what} {path} belongs to another user (uid {found.st_uid}): a journal decides what is not sent again, "
            "and is not believed on another user's word",
            hint="run as that user, move it away, or name another directory with --journal",
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise RefusedError(
            f"{what} {path} can be written by other users (mode {stat.S_IMODE(found.st_mode):04o}): a journal decides "
            "what is not sent again, and is not believed on another user's word",
            hint=f"chmod go-w {path}",
        )


def _last_line(file: io.BufferedReader) -> bytes:
    """The last line, when it is whole and short; else b""."""
    size = file.seek(0, os.SEEK_END)
    begin = file.seek(max(0, size - _LAST))
    data = file.read()
    if not data.endswith(b"\n"):
        return b""
    before = data.rfind(b"\n", 0, -1)
    return data[before + 1 :] if before >= 0 or begin == 0 else b""


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise RefusedError(f"the journal of the replay cannot be written to {path}: {what}", hint=_HINT) from error


def _make(directory: Path) -> None:
    """Make a directory, and what is missing above it: all of it on disk, or a crash takes the journal along."""
    missing = [directory, *directory.parents]
    missing = missing[: next((at for at, each in enumerate(missing) if each.exists()), len(missing))]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(each.parent)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Lock a journal for this process; False when another one is writing it. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
