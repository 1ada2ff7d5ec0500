"""Install pip into the environment of the running Python, from PyPI, with the standard library alone.

For a Debian or Ubuntu without python3-venv whose user is not root. The newest wheel of the index is taken, and its
hash compared; a wheel of pip is a zip file that Python can run, so it installs itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import Request, urlopen

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"


def main() -> None:
    request = Request(INDEX, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urlopen(request, timeout=60) as response:
        files = json.load(response)["files"]
    wheels = [
        (tuple(map(int, match[1].split("."))), file)
        for file in files
        if (match := re.fullmatch(r"pip-([\d.]+)-py3-none-any\.whl", file["filename"])) and not file.get("yanked")
    ]
    _, wheel = max(wheels, key=lambda pair: pair[0])
    with urlopen(urljoin(INDEX, wheel["url"]), timeout=120) as response:
        content = response.read()
    if hashlib.sha256(content).hexdigest() != wheel["hashes"]["sha256"]:
        raise SystemExit(f"{wheel['filename']} is not what the index says it is")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, wheel["filename"])
        file.write_bytes(content)
        subprocess.run([sys.executable, f"{file}/pip", "install", "--quiet", "--no-index", str(file)], check=True)


if __name__ == "__main__":
    main()
