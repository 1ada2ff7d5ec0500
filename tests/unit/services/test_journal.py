"""Where journals are, and what happens when they cannot be written."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from amqpflow.errors import RefusedError, UsageError
from amqpflow.parking.journal import JournalState
from amqpflow.parking.journal_lines import confirmed_line, end_line, intent_line, resumed_line
from amqpflow.services.loading import durable_file
from amqpflow.services.replaying import journal_file
from amqpflow.services.replaying.journal_file import JournalFile
from amqpflow.services.replaying.journal_files import Journals, default_directory, journals_in
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
    with pytest.raises(UsageError, match="no replay 'ff'"):
        journals.load("ff")
    journals.create(replace(HEAD, id="5f77"), messages=0).close()
    with pytest.raises(UsageError, match="2 replays begin with '5f'"):
        journals.load("5f")


def test_one_process_writes_a_journal_at_a_time(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    first = journals.create(HEAD, messages=0)
    with pytest.raises(RefusedError, match="another replay is writing"):
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
    with pytest.raises(RefusedError, match=r"cannot be written to .*: Not a directory") as caught:
        Journals(tmp_path / "file" / "below").create(HEAD, messages=0)
    assert "`journal` DIR" in caught.value.hint


def test_too_little_room_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="KiB are free"):
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

    monkeypatch.setattr(durable_file, "os", Full())
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
    with pytest.raises(RefusedError, match="cannot be used: line 1 is damaged"):
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

    monkeypatch.setattr(journal_file.os, "fstat", slow)
    asyncio.run(cancelled_while_the_disk_is_slow())
    assert (tmp_path / "of-the-application").read_bytes() == b""
    assert file.path.read_bytes() == head + intent_line(1, KEYS)


def test_a_journal_that_was_closed_takes_no_line(tmp_path: Path) -> None:
    file = Journals(tmp_path).create(HEAD, messages=1)
    file.close()
    file.close()
    with pytest.raises(OSError, match="the journal was closed"):
        file.write(intent_line(1, KEYS))


class Recorder:
    """The module os, telling what is on the disk: what was synced, and what was written and not synced yet."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.unsynced: dict[str, int] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, fd: int, data: memoryview) -> int:
        written = os.write(fd, data)
        self.unsynced[self._name(fd)] = self.unsynced.get(self._name(fd), 0) + written
        return written

    def fsync(self, fd: int) -> None:
        os.fsync(fd)
        self.synced.append(self._name(fd))
        self.unsynced.pop(self._name(fd), None)

    @staticmethod
    def _name(fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(durable_file, "os", recorder)
    return recorder


def test_a_line_is_on_the_disk_when_its_write_returns(tmp_path: Path, disk: Recorder) -> None:
    file = Journals(tmp_path).create(HEAD, messages=1)
    for line in (intent_line(1, KEYS), confirmed_line([1])):
        disk.synced.clear()
        file.write(line)
        assert (disk.synced, disk.unsynced) == ([str(file.path)], {})
    file.close()


def test_a_journal_and_the_directories_that_were_made_for_it_are_on_the_disk_when_it_begins(
    tmp_path: Path, disk: Recorder
) -> None:
    directory = tmp_path / "state" / "replays"
    file = Journals(directory).create(HEAD, messages=1)
    assert disk.synced == [str(tmp_path), str(tmp_path / "state"), str(file.path), str(directory)]
    disk.synced.clear()
    Journals(directory).create(replace(HEAD, id="5f77"), messages=1).close()
    assert disk.synced[-1] == str(directory)
    file.close()


def test_a_journal_that_another_process_takes_over_is_read_under_its_lock(tmp_path: Path) -> None:
    file = Journals(tmp_path).create(HEAD, messages=0)
    assert JournalFile.take(file.path) is None
    file.write(intent_line(1, KEYS))
    file.close()
    taken = JournalFile.take(file.path)
    assert taken is not None
    ours, state = taken
    assert state.sent == 6
    assert JournalFile.take(file.path) is None
    ours.write(confirmed_line([1]))
    ours.close()
    assert Journals(tmp_path).load(HEAD.id).confirmed == 1


def unfinished(journals: Journals, told: list[str] | None = None) -> list[str]:
    found = []
    for state, file in journals.unfinished(
        lambda head: head.vhost == HEAD.vhost, lambda path, _: (told if told is not None else []).append(path.name)
    ):
        found.append(state.head.id)
        if file is not None:
            file.close()
    return found


def test_finished_journals_and_those_of_other_places_are_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals, reads = Journals(tmp_path), 0
    for number in range(20):
        file = journals.create(replace(HEAD, id=f"done{number:02d}"), messages=0)
        file.write(b"".join(intent_line(first, KEYS) for first in range(1, 4000, 6)))
        file.write(end_line({"complete": True, "sent": 4002, "confirmed": 4002, "left": 0, "resumed": []}))
        file.close()
    journals.create(replace(HEAD, id="elsewhere", vhost="other"), messages=0).close()
    journals.create(replace(HEAD, id="here"), messages=0).close()
    whole = journal_file.read_journal

    def counted(lines: Iterable[bytes]) -> JournalState:
        nonlocal reads
        reads += 1
        return whole(lines)

    monkeypatch.setattr(journal_file, "read_journal", counted)
    assert unfinished(journals) == ["here"]
    assert reads == 1
    # nor to list them
    assert [each.sent for each in journals.all(lambda *_: None)] == [4002] * 20 + [0, 0]
    assert reads == 3


def test_one_that_is_not_finished_is_looked_at_again_when_it_was_written(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    file = journals.create(HEAD, messages=0)
    file.write(end_line({"complete": True}))
    assert unfinished(journals) == []
    file.write(resumed_line(5, "ops@host"))
    file.close()
    assert unfinished(journals) == [HEAD.id]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_journal_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    journals = Journals(tmp_path)
    journals.create(HEAD, messages=0).close()
    path = tmp_path / f"{HEAD.id}.replay"
    path.chmod(mode)
    for look in (
        lambda: journals.load(HEAD.id),
        lambda: unfinished(journals),
        lambda: list(journals.all(lambda *_: None)),
        lambda: journals.prune(),
        lambda: JournalFile.take(path),
    ):
        with pytest.raises(RefusedError, match=f"can be written by other users \\(mode {mode:04o}\\)") as caught:
            look()
        assert caught.value.hint == f"chmod go-w {path}"


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "journals"
    directory.mkdir()
    directory.chmod(0o777)
    journals = Journals(directory)
    for look in (
        lambda: journals.create(HEAD, messages=0),
        lambda: journals.load(HEAD.id),
        lambda: unfinished(journals),
        lambda: list(journals.all(lambda *_: None)),
    ):
        with pytest.raises(RefusedError, match=r"the directory of journals .* can be written by other users"):
            look()
    assert not list(directory.iterdir())


def test_what_belongs_to_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journals = Journals(tmp_path)
    journals.create(HEAD, messages=0).close()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RefusedError, match=rf"belongs to another user \(uid {os.getuid()}\)"):
        journals.load(HEAD.id)
    with pytest.raises(RefusedError, match="belongs to another user"):
        JournalFile.take(tmp_path / f"{HEAD.id}.replay")


def test_a_symbolic_link_and_a_pipe_are_no_journals(tmp_path: Path) -> None:
    journals, elsewhere = Journals(tmp_path / "journals"), tmp_path / "elsewhere"
    journals.create(HEAD, messages=0).close()
    (tmp_path / "journals" / f"{HEAD.id}.replay").rename(elsewhere)
    link = tmp_path / "journals" / "link.replay"
    link.symlink_to(elsewhere)
    with pytest.raises(RefusedError, match="is a symbolic link"):
        unfinished(journals)
    link.unlink()
    os.mkfifo(tmp_path / "journals" / "pipe.replay", 0o600)
    told: list[str] = []
    assert unfinished(journals, told) == []
    assert told == ["pipe.replay"]


def test_pruning_removes_finished_journals_alone(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    assert journals.prune() == []
    for name, at, complete in (("old", 5, True), ("new", 50, True), ("left", 5, False), ("running", 5, None)):
        file = journals.create(replace(HEAD, id=name, at=at), messages=0)
        if complete is not None:
            file.write(end_line({"complete": complete}))
        file.close()
    (tmp_path / "other.replay").write_text("nothing of the kind\n")
    (tmp_path / "other.replay").chmod(0o600)
    assert journals.prune(before=50) == ["old"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["left", "new", "other", "running"]
    assert journals.prune() == ["new"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["left", "other", "running"]


def test_a_journal_that_is_removed_while_journals_are_listed_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process prunes, or has nothing to write: the interrupted replay is known all the same."""
    journals, listed = Journals(tmp_path), Path.glob
    journals.create(HEAD, messages=0).close()

    def removed_meanwhile(directory: Path, pattern: str) -> Iterator[Path]:
        yield directory / "pruned.replay"
        yield from listed(directory, pattern)

    monkeypatch.setattr(Path, "glob", removed_meanwhile)
    assert journals.load(HEAD.id).head == HEAD
