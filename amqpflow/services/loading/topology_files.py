"""Find topology files, read them with a size limit, and check them together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from amqpflow.model.diagnostic import Diagnostic, Place, Severity
from amqpflow.model.routes import CompiledTopology
from amqpflow.topology.check import Checked, check_files
from amqpflow.topology.language.codes import Code
from amqpflow.topology.reading.document import MAX_BYTES

SUFFIXES = (".yaml", ".yml")


def check_paths(paths: Iterable[str | os.PathLike[str]], environ: Mapping[str, str] | None = None) -> Checked:
    """Read and check files, and directories as the topology files directly in them, all of them against each other.

    Args:
        paths: files and directories; one that is given twice counts once.
        environ: values of `${VAR}`; None means the process environment.

    Returns:
        Every problem, those of reading included, and the compiled topologies when there is no error.
    """
    files: dict[Path, tuple[str, bytes]] = {}
    unreadable: list[Diagnostic] = []
    for path in paths:
        for file in _files(Path(path), unreadable):
            try:
                files.setdefault(file.resolve(), (str(file), _read(file)))
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                unreadable.append(_unreadable(file, f"cannot be read: {getattr(error, 'strerror', None) or error}"))
    checked = check_files(files.values(), os.environ if environ is None else environ)
    if not unreadable:
        return checked
    return Checked(topologies=(), diagnostics=(*unreadable, *checked.diagnostics))


def not_one(path: str | os.PathLike[str], found: Iterable[CompiledTopology]) -> Diagnostic:
    """Return the problem of a directory that holds several topologies where one is wanted."""
    files = ", ".join(each.file for each in found)
    return _unreadable(Path(path), "the directory holds more than one topology", f"name one of {files}")


def _files(path: Path, unreadable: list[Diagnostic]) -> Iterator[Path]:
    try:
        directory = path.is_dir()
        found = sorted(file for file in path.iterdir() if _is_topology(file)) if directory else [path]
    except OSError as error:
        unreadable.append(_unreadable(path, f"cannot be read: {error.strerror or error}"))
        return
    if not found:
        unreadable.append(_unreadable(path, "the directory holds no topology", "their names end in .yaml or .yml"))
    yield from found


def _is_topology(file: Path) -> bool:
    return file.suffix in SUFFIXES and not file.name.startswith(".")


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _unreadable(path: Path, message: str, hint: str = "") -> Diagnostic:
    return Diagnostic(
        code=Code.UNREADABLE.value, severity=Severity.ERROR, place=Place(file=str(path)), message=message, hint=hint
    )
