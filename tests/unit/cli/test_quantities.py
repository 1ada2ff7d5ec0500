"""Durations, rates and percentages on the command line."""

from __future__ import annotations

import click
import pytest

from amqpflow.cli.options.quantities import DURATION, DURATION_OR_SECONDS, PERCENTAGE, RATE_OR_NUMBER, Quantity

OPTION = click.Option(["--limit-of"])


@pytest.mark.parametrize(
    ("quantity", "text", "number"),
    [
        (DURATION, "1m30s", 90),
        (DURATION, "250ms", 0.25),
        (DURATION, "0s", 0),
        (RATE_OR_NUMBER, "50/s", 50),
        (RATE_OR_NUMBER, "600/m", 10),
        (PERCENTAGE, "20%", 0.2),
    ],
)
def test_a_quantity_is_read_in_its_unit(
    quantity: Quantity, text: str, number: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantity.convert(text, OPTION, None) == number
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("quantity", "text", "number", "better"),
    [
        (DURATION_OR_SECONDS, "60", 60, "60s"),
        (DURATION_OR_SECONDS, "0.5", 0.5, "500ms"),
        (DURATION_OR_SECONDS, ".5", 0.5, "500ms"),
        (RATE_OR_NUMBER, "5", 5, "5/s"),
    ],
)
def test_a_bare_number_that_was_accepted_before_is_accepted_with_a_note(
    quantity: Quantity, text: str, number: float, better: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantity.convert(text, OPTION, None) == number
    assert (
        capsys.readouterr().err == f"Note: write --limit-of {better}: amqpflow 1.0 refuses a number without a unit.\n"
    )


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (DURATION, "5"),
        (DURATION_OR_SECONDS, "-1"),
        (RATE_OR_NUMBER, "many"),
        (RATE_OR_NUMBER, "2000000"),
        (PERCENTAGE, "20"),
    ],
)
def test_another_text_is_refused_with_the_name_of_the_option(quantity: Quantity, text: str) -> None:
    with pytest.raises(click.UsageError, match=r"^--limit-of: "):
        quantity.convert(text, OPTION, None)
