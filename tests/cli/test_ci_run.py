"""`.ci/run`, with `make` and the tool that starts brokers replaced by scripts that write down how they were called."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
URLS = "amqp://guest:guest@broker/|http://broker:15672"

MAKE = """\
#!/bin/sh
echo "make $* on ${AMQPFLOW_TEST_URLS:-}${AMQPFLOW_URL:-}" >> "$CALLS"
echo "_ test _"
echo "E   why it failed on ${AMQPFLOW_TEST_URLS:-}."
echo "== closing line =="
case ${AMQPFLOW_TEST_URLS:-} in "") exit $FIRST ;; *) exit $SECOND ;; esac
"""
TOOL = """\
#!/bin/sh
echo "brokers $1 $3" >> "$CALLS"
if [ "$1 $3" = "$BROKEN" ]; then exit 1; fi
"""


@dataclass(frozen=True)
class Done:
    code: int
    text: str
    calls: list[str]


class Checkout:
    """A directory that holds `.ci/run`, and commands for it to find in place of the real ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        (directory / "checkout" / ".ci").mkdir(parents=True)
        (directory / "checkout" / ".ci" / "run").write_text((ROOT / ".ci/run").read_text())
        for name, text in {"make": MAKE, "epmd": "#!/bin/sh\n", "curl": "#!/bin/sh\n"}.items():
            self.command(name, text)

    def command(self, name: str, text: str) -> Path:
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def with_tool(self) -> Checkout:
        self.command("id", "#!/bin/sh\necho 0\n")
        self.command("brokers", TOOL)
        return self

    def run(self, *, first: int = 0, second: int = 0, **environ: str) -> Done:
        calls = self.directory / "calls"
        calls.write_text("")
        done = subprocess.run(
            ["bash", self.directory / "checkout/.ci/run"],
            env={
                "PATH": f"{self.directory / 'bin'}:/usr/bin:/bin",
                "CALLS": str(calls),
                "FIRST": str(first),
                "SECOND": str(second),
                "AMQPFLOW_BROKERS": str(self.directory / "bin/brokers"),
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(code=done.returncode, text=done.stdout, calls=calls.read_text().splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_suite_runs_without_a_named_broker_and_then_on_those_named(checkout: Checkout) -> None:
    done = checkout.run(AMQPFLOW_TEST_URLS=URLS, AMQPFLOW_URL="amqp://elsewhere", PYTEST_ARGS="tests/unit")
    first, second = done.calls
    assert first == "make test on ", "as on a fresh machine, and all of it"
    assert second == f"make test PYTEST_ARGS=-m on_broker on {URLS}amqp://elsewhere"
    assert done.code == 0


@pytest.mark.parametrize(("first", "second"), [(2, 0), (0, 2), (2, 2)])
def test_either_failure_fails_and_both_runs_print_their_closing_line(
    checkout: Checkout, first: int, second: int
) -> None:
    done = checkout.run(first=first, second=second, AMQPFLOW_TEST_URLS=URLS)
    assert len(done.calls) == 2
    assert done.text.count("== closing line ==") == 2
    assert done.code == 1
    assert ("ci: failed on the installed RabbitMQ:\n_ test _\nE   why it failed on .\n" in done.text) == bool(first)
    assert ("ci: failed on the brokers that AMQPFLOW_TEST_URLS names" in done.text) == bool(second)


def test_without_the_tool_it_says_what_was_not_tested(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.calls == ["make test on "]
    assert "not tested on RabbitMQ 4.0 4.3" in done.text
    assert done.code == 0


def test_brokers_of_the_other_releases_are_started_for_the_second_run_and_removed(checkout: Checkout) -> None:
    done = checkout.with_tool().run(first=2)
    assert done.calls[0] == "make test on "
    assert [each for each in done.calls if each.startswith("brokers start")] == [
        "brokers start 4.0",
        "brokers start 4.3",
    ]
    (second,) = (each for each in done.calls[1:] if each.startswith("make test"))
    assert second.count("amqp://guest:guest@127.0.0.1:") == 2
    assert [each.strip() for each in done.calls[-2:]] == ["brokers reset", "brokers reset"]
    assert done.code == 1


@pytest.mark.parametrize("broken", ["install 4.3", "start 4.3"])
def test_a_broker_that_cannot_be_had_is_a_failure(checkout: Checkout, broken: str) -> None:
    done = checkout.with_tool().run(BROKEN=broken)
    assert done.code != 0
    assert [each for each in done.calls if each.startswith("make")] == ["make test on "]
