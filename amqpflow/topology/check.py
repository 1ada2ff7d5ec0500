"""From the bytes of topology files to checked specs and compiled topologies, with all problems in one go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from amqpflow.model.diagnostic import Diagnostic, Severity
from amqpflow.model.routes import CompiledTopology

from .compile.compiler import compile_topology
from .reading.document import decode, parse_document
from .reading.parse import parse_topology
from .reading.problems import Problems
from .reading.spec import TopologySpec
from .rules import check_topology
from .rules.across_files import check_together


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of one or more files."""

    topologies: tuple[CompiledTopology, ...]  #: empty when there is any error
    diagnostics: tuple[Diagnostic, ...]  #: errors and warnings, file by file, in the order of their places

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(each for each in self.diagnostics if each.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        return tuple(each for each in self.diagnostics if each.severity is Severity.WARNING)


def check_files(files: Iterable[tuple[str, bytes]], environ: Mapping[str, str]) -> Checked:
    """Check files that are to live together, and compile them if nothing is wrong.

    `files` are how each is called in messages, and its bytes; `environ` has the values of `${VAR}`.
    """
    read: list[tuple[TopologySpec, Problems]] = []
    problems: list[Problems] = []
    for name, data in files:
        found = Problems(name)
        problems.append(found)
        spec = read_spec(data, found, environ)
        if spec is not None and check_topology(spec, found):
            read.append((spec, found))
    check_together(read)
    diagnostics = tuple(each for found in problems for each in found.sorted())
    if any(found.fatal for found in problems):
        return Checked(topologies=(), diagnostics=diagnostics)
    return Checked(topologies=tuple(compile_topology(spec) for spec, _ in read), diagnostics=diagnostics)


def read_spec(data: bytes, problems: Problems, environ: Mapping[str, str]) -> TopologySpec | None:
    """Return one file as a spec, None when it is not a YAML mapping."""
    text = decode(data, problems)
    root = None if text is None else parse_document(text, problems, environ)
    return None if root is None else parse_topology(root, problems)
