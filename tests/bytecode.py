"""Keep compiled modules between processes and runs, also where the environment wants none beside the sources.

Each process that runs tests would compile and rewrite all of them otherwise, and each command that a test starts would
compile the whole package: a third of the time that the suite takes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"


def keep_bytecode() -> None:
    """Keep it in a directory of our own, for this process and those that it starts, unless Python keeps it anyway."""
    if not sys.dont_write_bytecode:
        return
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(DIRECTORY)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(DIRECTORY)
    # of modules that tests of earlier runs wrote
    shutil.rmtree(DIRECTORY / Path(tempfile.gettempdir()).relative_to("/"), ignore_errors=True)
