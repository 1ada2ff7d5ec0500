"""The project speaks of itself alone: no file names a path of somebody's machine or a tracker's number."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# written in two parts, so that this file does not contain what it looks for
STRAY = {
    "a path outside the repository": re.compile(r"(?<![\w.{}*-])/(?:wo" + r"rk|home/[a-z]|Users/[A-Za-z])/"),
    "a directory beside the repository": re.compile(r"\.\./sha" + r"red\b"),
    "a number of a tracker": re.compile(r"\b[Ii]ss" + r"ue #?\d+\b"),
}
ALLOWED = {".ci/run"}
"""What may name where it runs: the build's own entry."""


def files() -> list[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        return subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")


def test_no_file_points_out_of_the_repository() -> None:
    found = []
    for name in filter(None, files()):
        path = ROOT / name
        if name in ALLOWED or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for what, pattern in STRAY.items():
            found.extend(f"{name}: {what}: {match[0]}" for match in pattern.finditer(text))
    assert not found
