"""Files that hold what is expected. `AMQPFLOW_UPDATE_GOLDEN=1 pytest ...` writes them anew; then read the diff."""

from __future__ import annotations

import os
from pathlib import Path

UPDATE = "AMQPFLOW_UPDATE_GOLDEN"


def assert_golden(path: Path, text: str) -> None:
    """Compare with what the file holds, or write it when asked to."""
    if os.environ.get(UPDATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    expected = path.read_text() if path.exists() else ""
    assert text == expected, f"{path} differs; if that is meant, run the test with {UPDATE}=1 and read the diff"
