"""Files that survive a crash, for their owner's eyes only (mode 600)."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # some network file systems cannot sync a directory


def create(path: Path, flags: int = os.O_WRONLY) -> int:
    """Open a new file. Raises FileExistsError, OSError."""
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def append(fd: int, data: bytes) -> None:
    """Write all of the data, and return when it is on the disk. Raises OSError: it is not known to be there."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)


def sync_directory(directory: Path) -> None:
    """Return when the names in a directory are on the disk, as far as its file system can say so. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(fd)


def lock(fd: int) -> bool:
    """Lock a file for this process. Return False when another process holds the lock. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def partial_name(path: Path) -> Path:
    """Return a name beside a file, under which it is written until it is whole. Raises OSError: it names no file."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[int]:
    """Yield a new file to write, which takes the place of this one when it is whole. Raises OSError."""
    written = partial_name(path)
    fd = create(written)
    try:
        yield fd
        written.replace(path)
    except BaseException:
        written.unlink()
        raise
    finally:
        os.close(fd)
