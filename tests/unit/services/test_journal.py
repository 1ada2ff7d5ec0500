"""Where journals are, and what happens when they cannot be written."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from amqpflow.errors import Refused, WrongUsage
from amqpflow.parking.journal import intent_line
from amqpflow.services import journal
from amqpflow.services.journal import Journals, default_directory, journals_in
from tests.unit.parking.test_journal import HEAD, KEYS


def test_it_is_below_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "amqpflow" / "replays"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ops")
    assert default_directory() == Path("/home/ops/.local/state/amqpflow/replays")


def test_it_is_for_its_owner_alone_and_can_be_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    journals = journals_in(tmp_path / "deep" / "er")
    file = journals.create(HEAD, messages=10)
    file.write(intent_line(1, KEYS))
    file.close()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert journals.load("5f").sent == 6
    with pytest.raises(WrongUsage, match="no replay 'ff'"):
        journals.load("ff")
    journals.create(replace(HEAD, id="5f77"), messages=0).close()
    with pytest.raises(WrongUsage, match="'5f' is the beginning of 2 replays"):
        journals.load("5f")


def test_one_process_writes_a_journal_at_a_time(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    first = journals.create(HEAD, messages=0)
    with pytest.raises(Refused, match="another replay is writing"):
        journals.reopen(journals.load(HEAD.id))
    first.close()
    journals.reopen(journals.load(HEAD.id)).close()


def test_a_line_that_was_cut_off_is_removed_before_it_is_gone_on_with(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    file = journals.create(HEAD, messages=0)
    file.write(intent_line(1, KEYS)[:-9])
    file.close()
    again = journals.reopen(journals.load(HEAD.id))
    again.write(intent_line(1, KEYS[:2]))
    again.close()
    assert journals.load(HEAD.id).sent == 2


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"cannot be written to .*: Not a directory") as caught:
        Journals(tmp_path / "file" / "below").create(HEAD, messages=0)
    assert "--journal DIR" in caught.value.hint


def test_too_little_room_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="KiB are free"):
        Journals(tmp_path).create(HEAD, messages=1 << 50)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_in_the_middle_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Journals(tmp_path).create(HEAD, messages=0)
    write = os.write

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def write(self, fd: int, data: memoryview) -> int:
            if len(data) < 50:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, data[: len(data) // 2])

    monkeypatch.setattr(journal, "os", Full())
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            file.write(intent_line(1, KEYS))
    file.close()
    state = Journals(tmp_path).load(HEAD.id)
    assert (state.sent, state.size) == (0, file.path.stat().st_size)


def test_a_file_that_is_no_journal_is_told_of_and_left_out(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    journals.create(HEAD, messages=0).close()
    (tmp_path / "other.replay").write_bytes(b"nothing\nof\nthe kind\n")
    told: list[str] = []
    assert [each.head.id for each in journals.all(lambda path, _: told.append(path.name))] == [HEAD.id]
    assert told == ["other.replay"]
    with pytest.raises(Refused, match="cannot be used: line 1 is damaged"):
        journals.load("other")


def test_a_write_whose_task_was_cancelled_never_reaches_a_file_that_is_opened_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Journals(tmp_path).create(HEAD, messages=1)
    head = file.path.read_bytes()
    writing, disk_answers = threading.Event(), threading.Event()
    real = os.fstat

    def slow(descriptor: int) -> os.stat_result:
        writing.set()
        disk_answers.wait(30)
        return real(descriptor)

    async def cancelled_while_the_disk_is_slow() -> None:
        task = asyncio.create_task(file.written(intent_line(1, KEYS)))
        await asyncio.to_thread(writing.wait, 30)
        task.cancel()
        closing = asyncio.create_task(asyncio.to_thread(file.close))
        await asyncio.wait({closing}, timeout=0.3)
        with (tmp_path / "of-the-application").open("wb"):
            disk_answers.set()
            await closing
            await asyncio.wait({task})
            await asyncio.get_running_loop().shutdown_default_executor()

    monkeypatch.setattr(journal.os, "fstat", slow)
    asyncio.run(cancelled_while_the_disk_is_slow())
    assert (tmp_path / "of-the-application").read_bytes() == b""
    assert file.path.read_bytes() == head + intent_line(1, KEYS)


def test_a_journal_that_was_closed_takes_no_line(tmp_path: Path) -> None:
    file = Journals(tmp_path).create(HEAD, messages=1)
    file.close()
    file.close()
    with pytest.raises(OSError, match="the journal was closed"):
        file.write(intent_line(1, KEYS))
