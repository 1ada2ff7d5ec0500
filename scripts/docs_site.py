"""A hook of mkdocs: build the site from the markdown files as they are on the repository's pages.

The documents link to files outside of `docs/`. Those that are linked become part of the site, below `project/`:
markdown as a page, everything else as a file. A link to a directory leads to its README, or to a list of its documents.
Anchors are those of the repository's pages, so that one link works in both.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OUTSIDE = "project"  #: the directory of the site for what is not in `docs/`
TITLES = {"adr": "Decisions"}

_TOKEN = re.compile(  # code keeps what looks like a link
    r"^(?P<indent> *)```.*?^(?P=indent)```$"
    r"|(?P<text>\[[^\]]*\])\((?P<target>[^)\s]+)(?P<title>\s+\"[^\"]*\")?\)"
    r"|`[^`\n]+`",
    re.MULTILINE | re.DOTALL,
)
_FOREIGN = re.compile(r"<(?:script|img|link rel=.?(?:stylesheet|preconnect))[^>]*(?:src|href)=[\"']?https?:[^>]*>")
_ADDRESS = re.compile(r"[a-z]+:")
_log = get_plugin_logger("docs_site")


def slugify(heading: str, separator: str) -> str:
    """Return the anchor of a heading as the repository's pages make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_config(config: MkDocsConfig) -> None:
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents beside `docs/`, and what any document links to."""
    waiting = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        uri = site_path(path)
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=index_of(path) if path.is_dir() else path.read_bytes()))
        waiting.extend(listed(path) if path.is_dir() else linked(path))
    return files


def listed(directory: Path) -> list[Path]:
    """Return the documents of a directory, or its files if it has none."""
    return sorted(directory.glob("*.md")) or sorted(path for path in directory.iterdir() if path.is_file())


def index_of(directory: Path) -> str:
    """Return a page that lists what a directory holds, documents by their titles."""
    lines = [f"# {TITLES.get(directory.name, directory.name)}", ""]
    for path in listed(directory):
        title = path.read_text().partition("\n")[0].lstrip("# ") if path.suffix == ".md" else path.name
        lines.append(f"- [{title}]({path.name})")
    return "\n".join([*lines, ""])


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to the files of the site."""
    source = ROOT / repository_path(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        target = match["target"] or ""
        name, hash_, anchor = target.partition("#")
        if not name or _ADDRESS.match(target):
            return match[0]
        path = resolve(source, name)
        if not path.exists():
            _log.warning("%s: %s does not exist", page.file.src_uri, target)
            return match[0]
        link = posixpath.relpath(site_path(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"{match['text']}({link}{hash_}{anchor}{match['title'] or ''})"

    return _TOKEN.sub(replaced, markdown)


def on_post_page(output: str, page: Page, **_: Any) -> None:
    """Refuse a page that loads something from another host: the site works without the network."""
    for match in _FOREIGN.finditer(output):
        _log.warning("%s loads from another host: %s", page.file.src_uri, match[0])


def linked(document: Path) -> list[Path]:
    """Return the files and directories that a document links to, with a directory's README in its place."""
    if document.suffix != ".md" or not document.is_file():
        return []
    targets = (match["target"] or "" for match in _TOKEN.finditer(document.read_text()))
    names = (target.partition("#")[0] for target in targets if not _ADDRESS.match(target))
    return [resolve(document, name) for name in names if name]


def resolve(document: Path, name: str) -> Path:
    """Return the path that a link of a document leads to."""
    path = Path(os.path.normpath(document.parent / unquote(name)))
    readme = path / "README.md"
    return readme if readme.exists() else path


def site_path(path: Path) -> str:
    """Return where a file of the repository is in the site; a directory is the page that lists it."""
    below = path / "index.md" if path.is_dir() else path
    if below.is_relative_to(DOCS):
        return below.relative_to(DOCS).as_posix()
    return f"{OUTSIDE}/{below.relative_to(ROOT).as_posix()}"


def repository_path(uri: str) -> str:
    """Return where a page of the site comes from in the repository."""
    return uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"docs/{uri}"
