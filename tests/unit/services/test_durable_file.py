"""Files that survive a crash."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from amqpflow.services.loading import durable_file


def test_a_new_file_is_its_owners_and_never_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "x"
    os.close(durable_file.create(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        durable_file.create(path)


def test_all_is_written_when_the_disk_takes_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def write(self, fd: int, data: memoryview) -> int:
            return os.write(fd, data[:3])

    monkeypatch.setattr(durable_file, "os", Slow())
    fd = durable_file.create(tmp_path / "x")
    durable_file.append(fd, b"0123456789")
    os.close(fd)
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")

    def fail() -> None:
        with durable_file.replacing(path) as fd:
            durable_file.append(fd, b"half")
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        fail()
    assert ([each.name for each in tmp_path.iterdir()], path.read_text()) == (["x"], "before")
    with durable_file.replacing(path) as fd:
        durable_file.append(fd, b"after")
    assert ([each.name for each in tmp_path.iterdir()], path.read_text()) == (["x"], "after")


@pytest.mark.parametrize(("code", "is_refused"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_sync_a_directory_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_refused: bool
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, "sync")

    monkeypatch.setattr(durable_file.os, "fsync", fsync)
    if is_refused:
        with pytest.raises(OSError, match="sync"):
            durable_file.sync_directory(tmp_path)
    else:
        durable_file.sync_directory(tmp_path)


def test_one_process_locks_a_file(tmp_path: Path) -> None:
    first, second = durable_file.create(tmp_path / "x"), os.open(tmp_path / "x", os.O_RDONLY)
    assert (durable_file.lock(first), durable_file.lock(second)) == (True, False)
    os.close(first)
    assert durable_file.lock(second)
    os.close(second)
