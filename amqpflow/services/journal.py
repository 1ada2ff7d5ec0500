"""Where journals of replays are kept, and how they are written: appended, and on disk before anything rests on them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from amqpflow.errors import Refused, WrongUsage
from amqpflow.parking.journal import JournalHead, JournalState, JournalUnreadable, head_line, read_journal

_SUFFIX = ".replay"
BYTES_PER_MESSAGE = 120  #: in a journal, at most, for messages with ids of usual length
_LONGEST_HEAD = 1 << 20  #: bytes
_HINT = "--journal DIR keeps it elsewhere; nothing was sent"


def default_directory() -> Path:
    """`$XDG_STATE_HOME/amqpflow/replays`, by default below `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "amqpflow" / "replays"


class JournalFile:
    """
    One journal, open for writing by one process.

    Raises (on opening):
        Refused: it cannot be written, there is no room for it, or another process is writing it.
    """

    def __init__(self, path: Path, *, size: int | None = None) -> None:
        self.path = path
        self.failed: OSError | None = None  #: why nothing more can be written
        # a task that is cancelled leaves its thread writing: closing waits for it, or the write would go to
        # whatever file the process opens next under the same descriptor
        self._lock = Lock()
        self._closed = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if size is None else 0)
        with _refusing(path):
            self._fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise Refused(
                f"another replay is writing its journal {path}", hint="wait until it is done, or stop it"
            ) from error
        if size is not None:
            if _size_of(path) != size:
                os.close(self._fd)
                raise Refused(
                    f"another replay wrote its journal {path} in the meantime",
                    hint="amqpflow replay --history shows what is left to go on with",
                )
            with _refusing(path):
                os.ftruncate(self._fd, size)  # a line that was cut off was never acted on

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
                    pass  # a line that is cut off is read as none
                raise

    async def written(self, data: bytes) -> None:
        """`write`, in a thread."""
        await asyncio.to_thread(self.write, data)

    def discard(self) -> None:
        """Remove it: it tells of nothing."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let others write it, after the write that is under way."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)


class Journals:
    """A directory of journals."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seen: dict[Path, tuple[int, int]] = {}

    def create(self, head: JournalHead, *, messages: int) -> JournalFile:
        """
        Begin a journal, which is on disk when this returns.

        Args:
            head: which replay.
            messages: how many there may be, to see that there is room.

        Raises:
            Refused: the directory cannot be made or written to, or there is not enough room.
        """
        path = self.directory / f"{head.id}{_SUFFIX}"
        with _refusing(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            room = os.statvfs(self.directory)
        needed, free = messages * BYTES_PER_MESSAGE, room.f_bavail * room.f_frsize
        if needed > free:
            raise Refused(
                f"the journal in {self.directory} may take {needed // 1024 + 1} KiB, and {free // 1024} KiB are free",
                hint=_HINT,
            )
        file = JournalFile(path)
        with _refusing(path):
            file.write(head_line(head))
            _sync_directory(self.directory)
        return file

    def reopen(self, state: JournalState) -> JournalFile:
        """Go on writing a journal. Raises Refused, also when somebody wrote it since it was read."""
        return JournalFile(self.directory / f"{state.head.id}{_SUFFIX}", size=state.size)

    def load(self, start: str) -> JournalState:
        """
        Read one journal, by its id or the beginning of it.

        Raises:
            WrongUsage: there is none, or several. Refused: it cannot be read.
        """
        found = [path for path in self._paths() if path.name.startswith(start)]
        if len(found) != 1:
            many = f"{start!r} is the beginning of {len(found)} replays" if found else f"no replay {start!r}"
            raise WrongUsage(f"{many} in {self.directory}", hint="amqpflow replay --history lists them")
        try:
            return _read(found[0])
        except JournalUnreadable as error:
            raise Refused(
                f"the journal {found[0]} cannot be used: {error}",
                hint="move it away to replay without it: what it had in doubt is sent again then, with equal hop ids",
            ) from error

    def all(self, on_unreadable: Callable[[Path, str], None]) -> Iterator[JournalState]:
        """Every journal, the oldest first; `on_unreadable` is told of those that cannot be read."""
        self._seen.clear()
        yield from self.changed(on_unreadable)

    def changed(self, on_unreadable: Callable[[Path, str], None], *, but: Path | None = None) -> Iterator[JournalState]:
        """Those that were written since `all` or `changed` last read them, without `but`."""
        for path in self._paths():
            if path == but:
                continue
            try:
                found = path.stat()
                if self._seen.get(path) == (found.st_mtime_ns, found.st_size):
                    continue
                self._seen[path] = (found.st_mtime_ns, found.st_size)
                yield _read(path)
            except FileNotFoundError:
                continue
            except JournalUnreadable as error:
                if not _is_empty(path):
                    on_unreadable(path, str(error))

    def _paths(self) -> list[Path]:
        try:
            found = [(path.stat().st_mtime, path) for path in self.directory.glob(f"*{_SUFFIX}")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Refused(f"the journals in {self.directory} cannot be read: {error.strerror}") from error
        return [path for _, path in sorted(found)]


def journals_in(directory: str | Path | None) -> Journals:
    """The journals in a directory, or in the default one."""
    return Journals(Path(directory) if directory is not None else default_directory())


def _is_empty(path: Path) -> bool:
    """Its first line was not written out: nothing was sent."""
    try:
        with path.open("rb") as file:
            return not file.readline(_LONGEST_HEAD).endswith(b"\n")
    except OSError:
        return False


def _read(path: Path) -> JournalState:
    try:
        with path.open("rb") as file:
            return read_journal(file)
    except OSError as error:
        raise JournalUnreadable(str(error.strerror)) from error


def _size_of(path: Path) -> int | None:
    try:
        return _read(path).size
    except JournalUnreadable:
        return None


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise Refused(f"the journal of the replay cannot be written to {path}: {what}", hint=_HINT) from error


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
