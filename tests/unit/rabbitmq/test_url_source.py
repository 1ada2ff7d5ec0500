"""URLs that change while they are used: files that are replaced, functions that are called."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpflow.errors import BrokerUnavailableError, UsageError
from amqpflow.rabbitmq import url_source
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
from amqpflow.rabbitmq.url_source import UrlFunction
from tests.waiting import until

OLD, NEW = "amqp://user:old@broker/shop", "amqp://user:new@broker/shop"


def mounted(directory: Path, url: str) -> Path:
    """A secret as Kubernetes mounts it: the file leads through a link to a directory that is replaced as a whole."""
    (directory / "1").mkdir()
    (directory / "1" / "url").write_text(url)
    (directory / "..data").symlink_to("1")
    (directory / "url").symlink_to("..data/url")
    return directory / "url"


def swapped(directory: Path, url: str) -> None:
    (directory / "2").mkdir()
    (directory / "2" / "url").write_text(url)
    (directory / "..tmp").symlink_to("2")
    (directory / "..tmp").replace(directory / "..data")


def current(address: BrokerAddress) -> BrokerAddress:
    return asyncio.run(address.current())


def of_file(path: Path, **environ: str) -> BrokerAddress:
    return resolve_address(environ={"AMQPFLOW_URL_FILE": str(path), **environ})


def test_a_file_is_read_again(tmp_path: Path) -> None:
    address = of_file(mounted(tmp_path, f"{OLD}\n"))
    assert address.password == "old"
    swapped(tmp_path, f"{NEW}\n")
    assert (address.password, current(address).password) == ("old", "new")
    assert current(current(address)).password == "new"
    assert "new" not in f"{current(address)!r}"


def test_the_virtual_host_and_the_order_of_nodes_that_were_chosen_remain(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("amqp://u:p@a/v,amqp://u:p@b/v,amqp://u:p@c/v")
    address = of_file(file).starting_with(1).with_vhost("chosen")
    file.write_text("amqp://u:q@b/w,amqp://u:q@c/w,amqp://u:q@d/w")
    again = current(current(address))
    assert [(each.host, each.password, each.vhost) for each in again.nodes] == [
        ("c", "q", "chosen"),
        ("d", "q", "chosen"),
        ("b", "q", "chosen"),
    ]
    assert current(of_file(file)).vhost == "w"


def test_a_management_url_from_a_file_is_read_again(tmp_path: Path) -> None:
    url, management = tmp_path / "url", tmp_path / "management"
    url.write_text(OLD)
    management.write_text("http://admin:old@m")
    address = of_file(url, AMQPFLOW_MANAGEMENT_URL_FILE=str(management))
    management.write_text("http://admin:new@m")
    assert asyncio.run(address.current_with_management()).management_credentials() == ("admin", "new")
    url.write_text("amqps://user:new@broker/shop")
    assert current(address).tls
    with pytest.raises(BrokerUnavailableError, match="would travel in clear"):
        asyncio.run(address.current_with_management())


def test_amqp_connects_whatever_became_of_the_file_of_the_management_url(tmp_path: Path) -> None:
    url, management = tmp_path / "url", tmp_path / "management"
    url.write_text(OLD)
    management.write_text("http://admin:old@m")
    address = of_file(url, AMQPFLOW_MANAGEMENT_URL_FILE=str(management))
    management.unlink()
    url.write_text("amqp://user:new@broker/shop")
    assert current(address).password == "new"
    with pytest.raises(BrokerUnavailableError, match="AMQPFLOW_MANAGEMENT_URL_FILE: cannot read"):
        asyncio.run(address.current_with_management())


@pytest.mark.parametrize("meanwhile", ["", "amqp://us", "amqp://user:1", "amqp://user:new@broker/sh op", None])
def test_a_file_that_is_half_written_for_an_instant_is_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str | None
) -> None:
    file = tmp_path / "url"
    file.write_text(OLD)
    address, looks = of_file(file), 0
    read = url_source.UrlFile.read

    def slowly(self: url_source.UrlFile) -> str:
        nonlocal looks
        looks += 1
        if looks == 1 and meanwhile is None:
            file.unlink()
        elif looks == 1:
            file.write_text(str(meanwhile))
        elif looks == 2:
            file.write_text(NEW)
        return read(self)

    monkeypatch.setattr(url_source.UrlFile, "read", slowly)
    monkeypatch.setattr(url_source, "_FRESH", 60.0)  # a machine may stand still for a second
    assert current(address).password == "new"
    assert looks == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"AMQPFLOW_URL_FILE: .*url is empty"),
        (b"broker", r"AMQPFLOW_URL_FILE \(.*url\) is not a URL"),
        (b"\xff\xfe", r"AMQPFLOW_URL_FILE: cannot read .*url: it is not text"),
        (None, r"AMQPFLOW_URL_FILE: cannot read .*url: No such file"),
    ],
)
def test_a_file_without_a_url_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, says: str
) -> None:
    monkeypatch.setattr(url_source, "_PAUSE", 0.001)
    file = tmp_path / "url"
    file.write_text(OLD)
    address = of_file(file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        of_file(file)
    with pytest.raises(BrokerUnavailableError, match=says):
        current(address)


def test_a_byte_order_mark_is_no_part_of_the_url(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_bytes(b"\xef\xbb\xbf" + OLD.encode() + b"\r\n")
    assert of_file(file).host == "broker"


# -- functions


def plain() -> str:
    assert threading.current_thread() is not threading.main_thread(), "it may block"
    return NEW


async def asynchronous() -> str:
    return NEW


class AsyncCall:
    async def __call__(self) -> str:
        return NEW


@pytest.mark.parametrize("function", [plain, asynchronous, AsyncCall(), lambda: NEW, lambda: asynchronous()])
def test_a_function_returns_the_url(function: UrlFunction) -> None:
    address = resolve_address(function, environ={}).with_vhost("chosen").starting_with(3)
    assert "new" not in f"{address!r} {address}"
    found = current(address)
    assert (found.password, found.vhost, found.host) == ("new", "chosen", "broker")


def test_until_it_is_called_nothing_is_known_and_nothing_fails() -> None:
    address = resolve_address(asynchronous, environ={"AMQPFLOW_MANAGEMENT_URL": "http://m"})
    assert str(address) == "the broker that asynchronous() names"
    assert address.unused == "AMQPFLOW_MANAGEMENT_URL"


def raising(error: Exception) -> Callable[[], str]:
    def token() -> str:
        raise error

    return token


def returning(value: Any) -> Callable[[], Any]:
    def token() -> Any:
        return value

    return token


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (raising(OSError("no route to the identity provider")), "OSError: no route to the identity provider"),
        (raising(ValueError("cannot use amqp://u:secret@h/")), r"ValueError: cannot use amqp://\*\*\*@h/"),
        (raising(ValueError("no amqp://u:my/secret@h/v or u:se/cret@h")), r"ValueError: no amqp://\*\*\*@h$"),
        (raising(ValueError("cannot use user:my/secret@h for this")), r"cannot use \*\*\*@h for this"),
        (raising(ValueError("cannot use AMQPS:/u:my secret?@h")), r"cannot use AMQPS:/\*\*\*@h"),
        (raising(TimeoutError()), "token.. returned no URL: TimeoutError"),
        (returning(None), "returned no URL: NoneType"),
        (returning(b"amqp://u:secret@h"), "returned no URL: bytes"),
        (returning("broker"), "what token.. returned is not a URL of the form"),
        (returning(""), "what token.. returned is empty"),
    ],
)
def test_a_function_that_returns_no_url_says_so(function: Callable[[], Any], says: str) -> None:
    with pytest.raises(BrokerUnavailableError, match=says) as failed:
        current(resolve_address(function, environ={}))
    assert "secret" not in f"{failed.value}{failed.value.hint}"


def test_a_function_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_source, "_ANSWER_TIMEOUT", 0.05)

    async def hangs() -> str:
        await asyncio.Event().wait()
        return NEW

    with pytest.raises(BrokerUnavailableError, match="returned no URL: nothing within"):
        current(resolve_address(hangs, environ={}))


HANGS = """
import asyncio, threading
from amqpflow.rabbitmq import url_source
from amqpflow.rabbitmq.address import resolve_address
url_source._ANSWER_TIMEOUT = 0.05
try:
    asyncio.run(resolve_address(threading.Event().wait, environ={}).current())
except Exception as error:
    print(error)
"""


def test_a_function_that_blocks_for_ever_does_not_keep_the_process_from_its_end() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=120, check=True)
    assert "wait() returned no URL: nothing within" in ended.stdout


def test_calls_that_hang_are_not_added_to_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_source, "_ANSWER_TIMEOUT", 0.01)
    over, begun = threading.Event(), list[int]()

    def hangs() -> str:
        begun.append(1)
        over.wait()
        return NEW

    address = resolve_address(hangs, environ={})
    try:
        for _ in range(10):
            with pytest.raises(BrokerUnavailableError, match="nothing within"):
                current(address)
        with pytest.raises(BrokerUnavailableError, match=r"10 earlier calls of .* have not returned yet"):
            current(address)
        asyncio.run(until(lambda: len(begun) == 10))
    finally:
        over.set()


# -- another place


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        ("amqp://u:p@a/v", "amqp://other:q@a/v", True),
        ("amqp://u:p@a/v", "amqp://u:p@b/v,amqp://u:p@a/v", True),
        ("amqp://u:p@a/v", "amqp://u:p@a:5672/v?heartbeat=5", True),
        ("amqp://u:p@a/v", "amqp://u:p@a/w", False),
        ("amqp://u:p@a/v", "amqp://u:p@b/v", False),
        ("amqp://u:p@a/v", "amqp://u:p@a:5673/v", False),
    ],
)
def test_another_password_is_the_same_place_and_another_host_is_not(then: str, now: str, same: bool) -> None:
    assert resolve_address(now, environ={}).leads_to(resolve_address(then, environ={})) is same


def test_a_file_of_another_user_is_named_without_its_content(tmp_path: Path) -> None:
    if os.getuid() == 0:
        directory = tmp_path / "url"
        directory.mkdir()
        with pytest.raises(UsageError, match="Is a directory"):
            of_file(directory)
        return
    file = tmp_path / "url"
    file.write_text(OLD)
    file.chmod(0)
    with pytest.raises(UsageError, match="Permission denied"):
        of_file(file)
