"""The table of the imports between rooms, which `scripts/rooms.py` prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import ROOT, load_script

rooms = load_script("scripts/rooms.py")

IMPORTS = [
    ("shop.sales.till", "shop.stock.shelf"),
    ("shop.sales.till", "shop.stock.cellar"),
    ("shop.stock.shelf", "shop.stock.cellar"),
    ("shop.sales", "shop.words"),
    ("shop.stock.shelf", "json"),
    ("shops.other", "shop.words"),
]


def table(imports: list[tuple[str, str]], modules: dict[str, int]) -> list[str]:
    return list(rooms.render("shop", modules, rooms.count_arrows(imports, "shop")))


def test_an_arrow_is_a_pair_of_rooms_and_a_cell_its_imports() -> None:
    assert table(IMPORTS, {"sales": 2, "stock": 3, "words": 1}) == [
        "shop: 3 rooms, 6 modules, 2 arrows, no circle",
        "             stock  words",
        "  sales (2)      2      1",
        "  stock (3)      .      .",
        "  words (1)      .      .",
    ]


def test_a_circle_is_named() -> None:
    imports = [*IMPORTS, ("shop.stock.shelf", "shop.sales.till")]
    assert table(imports, {"sales": 2, "stock": 3, "words": 1})[0] == (
        "shop: 3 rooms, 6 modules, 3 arrows, a circle: sales, stock"
    )


def test_many_rooms_are_listed() -> None:
    imports = [(f"shop.room{number:02}", f"shop.room{number + 1:02}") for number in range(20)]
    lines = table(imports, {f"room{number:02}": 1 for number in range(21)})
    assert lines[:2] == ["shop: 21 rooms, 21 modules, 20 arrows, no circle", "  room00 (1): room01 1"]
    assert lines[-1] == "  room20 (1): -"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    package = tmp_path / "amqpflow"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from amqpflow import two\n"
    )
    (package / "two.py").touch()
    return tmp_path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/rooms.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_another_checkout_is_read_and_imports_for_type_checkers_count(checkout: Path) -> None:
    done = run("--source", str(checkout), "amqpflow")
    assert done.stdout.splitlines() == [
        "amqpflow: 2 rooms, 2 modules, 1 arrows, no circle",
        "           two",
        "  one (1)    1",
        "  two (1)    .",
    ]


def test_a_package_that_is_missing_is_a_usage_error(checkout: Path) -> None:
    done = run("--source", str(checkout), "amqpflow.three")
    assert done.returncode == 2
    assert f"amqpflow.three is not a package of {checkout}" in done.stderr
