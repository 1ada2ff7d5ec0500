"""The reference says what the code does: keys, codes, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amqpflow.topology.language.codes import Code
from tests.golden import assert_golden
from tests.topology_files import check
from tests.unit.topology.reference import keys_reference

DOCS = Path(__file__).parents[3] / "docs" / "reference"
BEGIN = "<!-- keys: made by tests/unit/topology/test_reference.py, see tests/golden.py -->\n"
END = "<!-- end of keys -->\n"


def test_the_reference_lists_every_key_as_the_code_has_it() -> None:
    text = (DOCS / "topology.md").read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    assert_golden(DOCS / "topology.md", f"{before}{BEGIN}\n{keys_reference()}\n{END}{after}")


@pytest.mark.parametrize("file", ["topology.md", "diagnostics.md"])
def test_the_yaml_of_the_reference_is_valid(file: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / file).read_text(), flags=re.DOTALL)
    whole = [block for block in blocks if "version: 1" in block]
    for block in whole:
        assert not check(block).diagnostics
    if file == "topology.md":
        assert whole


def test_every_code_is_explained_once() -> None:
    rows = re.findall(r"^\| (T\d+) \|(.*)$", (DOCS / "diagnostics.md").read_text(), flags=re.MULTILINE)
    assert [code for code, _ in rows] == [code.value for code in Code]
    assert all(len(explained) > 30 for _, explained in rows)
