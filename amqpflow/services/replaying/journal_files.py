"""The directory of journals: begin one, resume one, find those of interrupted replays, remove the finished."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from amqpflow.errors import RefusedError, UsageError
from amqpflow.parking.journal import JournalHead, JournalState, UnreadableJournalError, finished
from amqpflow.parking.journal_lines import head_line
from amqpflow.services.loading import durable_file
from amqpflow.services.loading.whoami import user

from .journal_file import JournalEnds, JournalFile, read_ends, read_whole, require_own

_SUFFIX = ".replay"
BYTES_PER_MESSAGE = 150  #: in a journal, at most, for messages with ids of usual length
_HINT = "`journal` DIR keeps it elsewhere; nothing was sent"

OnUnreadable = Callable[[Path, str], None]


def default_directory() -> Path:
    """Return `$XDG_STATE_HOME/amqpflow/replays`, by default below `~/.local/state`. Raises UsageError: the user has no
    home directory, as in a container that runs under a number alone.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise UsageError(
            f"no directory for the journals of replays: the user {user()} has no home directory, and neither HOME nor "
            "XDG_STATE_HOME is set",
            hint="name one by `journal` DIR or XDG_STATE_HOME",
        ) from None
    return base / "amqpflow" / "replays"


class Journals:
    """A directory of journals.

    Every method raises RefusedError when another user owns or may write the directory or a journal in it: a journal
    decides what is not sent, so no other user may write it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._seen: dict[Path, tuple[int, int]] = {}

    def create(self, head: JournalHead, *, messages: int, lines: bytes = b"") -> JournalFile:
        """Begin a journal, which is on disk when this returns.

        Args:
            messages: how many there may be, to see that there is room.
            lines: what stands behind the first line.

        Raises:
            RefusedError: the directory cannot be made or written to, or there is not enough room.
        """
        path = self.directory / f"{head.id}{_SUFFIX}"
        with _refusing(self.directory):
            _make(self.directory)
            room = os.statvfs(self.directory)
        self._require_own()
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
                durable_file.sync_directory(self.directory)
            except BaseException:
                file.close()
                raise
        return file

    def reopen(self, state: JournalState) -> JournalFile:
        """Resume writing a journal. Raises RefusedError, also when another process wrote it since it was read."""
        path = self.directory / f"{state.head.id}{_SUFFIX}"
        self._require_own()
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
        """Read one journal, by its id or a prefix of it. Raises UsageError: there is none, or several. RefusedError."""
        found = [path for path in self._paths() if path.name.startswith(start)]
        if len(found) != 1:
            many = f"{len(found)} replays begin with {start!r}" if found else f"no replay {start!r}"
            raise UsageError(f"{many} in {self.directory}", hint="amqpflow replay --history lists them")
        try:
            return read_whole(found[0])
        except UnreadableJournalError as error:
            raise RefusedError(
                f"the journal {found[0]} cannot be used: {error}",
                hint="move it away to replay without it: its messages in doubt are sent again, with equal hop ids",
            ) from error

    def all(self, on_unreadable: OnUnreadable) -> Iterator[JournalState]:
        """Yield every journal, the oldest first; of finished ones only what the first line and the last say."""
        for path in self._paths():
            if (ends := self._ends(path, on_unreadable)) is None:
                continue
            if (state := finished(ends.head, ends.last)) is None:
                try:
                    state = read_whole(path)
                except FileNotFoundError:
                    continue
                except UnreadableJournalError as error:
                    on_unreadable(path, str(error))
                    continue
            yield state

    def unfinished(
        self, wanted: Callable[[JournalHead], bool], on_unreadable: OnUnreadable, *, but: Collection[Path] = ()
    ) -> Iterator[tuple[JournalState, JournalFile | None]]:
        """Yield the journals of interrupted replays, each whole, with its file taken over; None for the file when a
        process is writing it. One that was seen to be finished, or is not wanted, is not read again until it changes.
        `but`: these are skipped.
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
                yield (read_whole(path), None) if taken is None else (taken[1], taken[0])
            except FileNotFoundError:
                continue
            except (UnreadableJournalError, OSError) as error:
                self._seen[path] = now
                on_unreadable(path, str(error))

    def prune(self, before: int | None = None) -> list[str]:
        """Remove the journals of finished replays that began before a time (ms); return their ids, oldest first."""
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
                durable_file.sync_directory(self.directory)
        return removed

    def _ends(self, path: Path, on_unreadable: OnUnreadable) -> JournalEnds | None:
        try:
            return read_ends(path)
        except FileNotFoundError:
            return None
        except UnreadableJournalError as error:
            on_unreadable(path, str(error))
        except OSError as error:
            on_unreadable(path, str(error.strerror))
        return None

    def _require_own(self) -> None:
        with _refusing(self.directory):
            require_own(self.directory, self.directory.stat())

    def _paths(self) -> list[Path]:
        try:
            require_own(self.directory, self.directory.stat())
            found = [
                (each, path) for path in self.directory.glob(f"*{_SUFFIX}") if (each := _written_at(path)) is not None
            ]
        except (FileNotFoundError, NotADirectoryError):
            return []  # `create` says so
        except OSError as error:
            raise RefusedError(
                f"the journals in {self.directory} cannot be read: {error.strerror}",
                hint="`journal` DIR names another directory",
            ) from error
        return [path for _, path in sorted(found)]


def journals_in(directory: str | Path | None) -> Journals:
    """Return the journals in a directory, or in the default one."""
    return Journals(Path(directory) if directory is not None else default_directory())


def _written_at(path: Path) -> float | None:
    """Return when it was written last; None: another process removed it just now."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return None


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise RefusedError(f"the journal of the replay cannot be written to {path}: {what}", hint=_HINT) from error


def _make(directory: Path) -> None:
    """Make a directory, and its missing parents: all of them on the disk, or a crash takes the journal along."""
    missing = [directory, *directory.parents]
    missing = missing[: next((at for at, each in enumerate(missing) if each.exists()), len(missing))]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        durable_file.sync_directory(each.parent)
