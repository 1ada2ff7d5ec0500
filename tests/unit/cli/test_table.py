"""A table fits into a terminal, and elsewhere loses nothing."""

from __future__ import annotations

import pytest

from amqpflow.cli.render import table as module
from amqpflow.cli.render.table import table

LONG = "q" * 60
ROWS = [("QUEUE", "ERROR", "ID"), (LONG, "e" * 150, "1"), ("orders", "boom", "2")]


def lines(
    monkeypatch: pytest.MonkeyPatch, width: int | None, stretched: int | None = 1, rows: list[tuple[str, ...]] = ROWS
) -> list[str]:
    monkeypatch.setattr(module, "terminal_width", lambda: width)
    return list(table(lambda: rows, stretched=stretched))


@pytest.mark.parametrize("width", [80, 120, 200])
def test_on_a_terminal_cells_are_cut_and_columns_stay_in_line(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    found = lines(monkeypatch, width)
    assert max(map(len, found)) <= width
    assert found[1].startswith("q" * 39 + "…  e")
    assert [line[found[0].index("ID") :] for line in found] == ["ID", "1", "2"]


@pytest.mark.parametrize(("width", "stretched"), [(None, 1), (None, None), (80, None)])
def test_off_a_terminal_or_without_a_column_that_gives_way_no_cell_is_cut(
    monkeypatch: pytest.MonkeyPatch, width: int | None, stretched: int | None
) -> None:
    head, first, second = lines(monkeypatch, width, stretched)
    assert first.split() == [LONG, "e" * 150, "1"]
    assert head.index("ERROR") == second.index("boom") == 42, "one long name does not widen every line"


def test_wide_characters_take_two_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[str, ...]] = [("A", "B"), ("注文", "1"), ("ab", "2"), ("注" * 30, "3")]
    found = lines(monkeypatch, 80, 1, rows)
    assert found[1] == "注文" + " " * 36 + "  1"
    assert found[2] == "ab" + " " * 38 + "  2"
    assert found[3].startswith("注" * 19 + "…")


def test_a_table_of_headings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch, 80, 1, ROWS[:1]) == ["QUEUE  ERROR  ID"]
