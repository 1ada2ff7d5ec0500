"""Bytes of a file -> UTF-8 text -> YAML nodes that know their line and column.

Built on the parser's events instead of PyYAML's own composer: in one pass, without recursion, nesting and the
expansion of aliases stay bounded, duplicate keys are seen, and scalars get YAML 1.2's few types (`on`, `1:30` and `010`
stay the text they look like). Nothing in a file can construct an object: tags are refused.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from amqpflow.model.diagnostic import Place
from amqpflow.topology.language.codes import Code

from .nodes import UNUSABLE, Entry, ListNode, MappingNode, Node, Scalar, plain_value
from .problems import Problems
from .variables import VariableError, expand

MAX_BYTES = 1024 * 1024
"""Some 3,000 queues; larger topologies are better several files."""
MAX_NODES = 100_000
"""Counted after aliases are expanded."""
MAX_DEPTH = 32

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def decode(data: bytes, problems: Problems) -> str | None:
    """Return the text of a file, None when it has none (then said)."""
    start = Place(file=problems.file)
    if len(data) > MAX_BYTES:
        hint = "write several files; validate and apply take them together"
        problems.error(Code.TOO_LARGE, start, f"the file is larger than {MAX_BYTES // 1024**2} MiB", hint)
        return None
    if data.startswith(_UTF16) or b"\0" in data:
        known = "UTF-16" if data.startswith(_UTF16) else "binary"
        problems.error(Code.NOT_TEXT, start, f"the file is {known}, not UTF-8 text", "save it as UTF-8")
        return None
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - before.rfind(b"\n")
        place = Place(file=problems.file, line=before.count(b"\n") + 1, column=column)
        problems.error(Code.NOT_TEXT, place, f"the byte {data[error.start]:#04x} is not UTF-8", "save it as UTF-8")
        return None


def parse_document(text: str, problems: Problems, environ: Mapping[str, str]) -> MappingNode | None:
    """Return the mapping at the top of one YAML document, None when the text is not one (then said).

    Duplicate keys, tags and undefined variables are reported and left out, so that the rest can be checked as well.
    """
    composer = _Composer(problems, environ)
    try:
        root = composer.compose(_events(text))
    except _StopError as stop:
        problems.error(stop.code, stop.place, stop.message, stop.hint)
        return None
    except yaml.YAMLError as error:
        _report_syntax(error, text, problems)
        return None
    if isinstance(root, MappingNode):
        return root
    start = Place(file=problems.file)
    if root is None or (isinstance(root, Scalar) and root.value is None):
        problems.error(Code.NOT_A_MAPPING, start, "the file is empty", "`amqpflow schema` lists the keys")
    else:
        found = "a list" if isinstance(root, ListNode) else "a single value"
        hint = "start with version: 1 and name: NAME"
        problems.error(Code.NOT_A_MAPPING, root.place, f"a topology is a mapping of keys, this is {found}", hint)
    return None


def _events(text: str) -> Iterator[Any]:
    loader = _Loader(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


class _StopError(Exception):
    """The rest of the text cannot be read, or shall not be."""

    def __init__(self, code: Code, place: Place, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.place, self.message, self.hint = code, place, message, hint


@dataclass(slots=True, kw_only=True)
class _Open:
    """A list or mapping whose end has not been seen."""

    place: Place
    anchor: str | None
    mapping: bool
    nodes: int = 1  #: inside it, aliases expanded
    height: int = 1
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    key: tuple[str, Place] | None = None
    key_wanted: bool = True


class _Composer:
    def __init__(self, problems: Problems, environ: Mapping[str, str]) -> None:
        self.problems = problems
        self.environ = environ
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int, int] | None] = {}
        self.root: Node | None = None
        self.nodes = 0
        self.documents = 0

    def compose(self, events: Iterator[Any]) -> Node | None:
        for event in events:
            match event:
                case yaml.DocumentStartEvent():
                    self.documents += 1
                    if self.documents > 1:
                        raise _StopError(
                            Code.UNSUPPORTED_YAML,
                            self.place(event),
                            "a second document starts here: a file holds one topology",
                            "write it to a file of its own; validate and apply take several files",
                        )
                case yaml.AliasEvent():
                    self.alias(event)
                case yaml.ScalarEvent():
                    self.scalar(event)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self.start(event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self.end()
        return self.root

    def place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(file=self.problems.file, line=mark.line + 1, column=mark.column + 1)

    def refuse_tag(self, event: Any, place: Place) -> None:
        if event.tag is not None:
            hint = 'remove it; quote a value to make it text, as in "10"'
            self.problems.error(Code.UNSUPPORTED_YAML, place, f"the tag {event.tag[:64]} is not allowed", hint)

    def start(self, event: Any) -> None:
        place = self.place(event)
        self.refuse_tag(event, place)
        if len(self.open) >= MAX_DEPTH:
            raise _StopError(Code.TOO_COMPLEX, place, f"nested more than {MAX_DEPTH} levels deep")
        self.refuse_as_key(place, "a list or mapping")
        if event.anchor:
            self.anchors[event.anchor] = None
        self.open.append(_Open(place=place, anchor=event.anchor, mapping=isinstance(event, yaml.MappingStartEvent)))

    def end(self) -> None:
        done = self.open.pop()
        node: Node
        if done.mapping:
            node = MappingNode(place=done.place, entries=tuple(done.entries.values()))
        else:
            node = ListNode(place=done.place, items=tuple(done.items))
        self.add(node, done.anchor, done.nodes, done.height)

    def alias(self, event: Any) -> None:
        place = self.place(event)
        self.refuse_as_key(place, "an alias")
        anchor = event.anchor
        if anchor not in self.anchors:
            raise _StopError(Code.SYNTAX, place, f"no anchor &{anchor[:64]} before this alias")
        known = self.anchors[anchor]
        if known is None:
            raise _StopError(Code.TOO_COMPLEX, place, f"*{anchor[:64]} refers to a value that contains it")
        self.count(known[1], place)
        if len(self.open) + known[2] > MAX_DEPTH:
            raise _StopError(Code.TOO_COMPLEX, place, f"with aliases nested more than {MAX_DEPTH} levels deep")
        self.add(known[0], None, known[1], known[2], counted=True)

    def scalar(self, event: Any) -> None:
        place = self.place(event)
        self.refuse_tag(event, place)
        if self.is_key():
            self.key(event, place)
            return
        text, plain = event.value, not event.style
        expanded = "${" in text
        if expanded:
            try:
                text = expand(text, self.environ)
            except VariableError as error:
                # only in an unquoted scalar on one line is the offset in the value also one in the file
                one_line = event.start_mark.line == event.end_mark.line
                inside = error.offset if plain and one_line else 0
                where = Place(file=place.file, line=place.line, column=place.column + inside)
                self.problems.error(Code.VARIABLE, where, str(error), error.hint)
                self.drop()
                return
        value = plain_value(text) if plain and not (expanded and not text) else text
        self.add(Scalar(place=place, text=text, value=value, expanded=expanded), event.anchor, 1, 0)

    def is_key(self) -> bool:
        return bool(self.open) and self.open[-1].mapping and self.open[-1].key_wanted

    def refuse_as_key(self, place: Place, what: str) -> None:
        if self.is_key():
            raise _StopError(Code.UNSUPPORTED_YAML, place, f"{what} cannot be a key: keys are text")

    def key(self, event: Any, place: Place) -> None:
        mapping, key = self.open[-1], event.value
        mapping.key_wanted = False
        mapping.key = None
        self.count(1, place)
        if event.anchor:
            # an alias of a key would be a value, and so it is
            self.anchors[event.anchor] = (Scalar(place=place, text=key, value=key), 1, 0)
        if key == "<<" and not event.style:
            hint = "write the keys out, or put what queues share under defaults"
            self.problems.error(Code.UNSUPPORTED_YAML, place, "merge keys (<<) are not supported", hint)
        elif key in mapping.entries:
            first = mapping.entries[key].place.line
            hint = f"it is on line {first} already; remove one of them"
            self.problems.error(Code.DUPLICATE_KEY, place, f"duplicate key {key[:255]}", hint)
        else:
            if "${" in key:
                hint = "they are in values; write the name out"
                self.problems.error(Code.VARIABLE, place, "variables are not expanded in keys", hint)
            mapping.key = (key, place)

    def drop(self) -> None:
        """Drop a value that cannot be used, with its key, so that it is not reported twice."""
        self.nodes += 1
        if self.open and self.open[-1].mapping:
            top = self.open[-1]
            if top.key is not None:
                top.entries[top.key[0]] = Entry(key=top.key[0], place=top.key[1], node=UNUSABLE)
            top.key_wanted = True
        elif self.open:
            self.open[-1].items.append(UNUSABLE)

    def count(self, nodes: int, place: Place) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            hint = "aliases count as often as they are used" if self.anchors else "split it into several files"
            raise _StopError(Code.TOO_COMPLEX, place, f"the file holds more than {MAX_NODES:,} values", hint)

    def add(self, node: Node, anchor: str | None, nodes: int, height: int, *, counted: bool = False) -> None:
        if not counted:
            self.count(1, node.place)
        if anchor:
            self.anchors[anchor] = (node, nodes, height)
        if not self.open:
            self.root = node
            return
        top = self.open[-1]
        top.nodes += nodes
        top.height = max(top.height, height + 1)
        if not top.mapping:
            top.items.append(node)
            return
        if top.key is not None:
            top.entries[top.key[0]] = Entry(key=top.key[0], place=top.key[1], node=node)
        top.key_wanted = True


def _report_syntax(error: yaml.YAMLError, text: str, problems: Problems) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # the reader's: a character that YAML does not allow
        position = getattr(error, "position", None)
        before = text[:position] if isinstance(position, int) else ""
        place = Place(file=problems.file, line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))
        problems.error(Code.NOT_TEXT, place, "a control character, which YAML does not allow", "is this a text file?")
        return
    place = Place(file=problems.file, line=mark.line + 1, column=mark.column + 1)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    said = getattr(error, "problem", None) or "not YAML"
    if said == "exceeded maximum nesting depth":  # libyaml's own limit, which its scanner runs into far ahead
        problems.error(Code.TOO_COMPLEX, place, f"nested more than {MAX_DEPTH} levels deep")
        return
    context = getattr(error, "context", None)
    hint = ""
    if "\t" in line[: mark.column + 1]:
        said, hint = "a tab: YAML is indented with spaces", "replace the tabs of this line by spaces"
    elif "${" in line:
        hint = 'a value with ${...} inside { } or [ ] must be quoted: "${NAME}"'
    elif "cannot start any token" in said:
        hint = "quote a value that starts with this character"
    message = f"not valid YAML: {said}" + (f", {context}" if context and not hint else "")
    problems.error(Code.SYNTAX, place, message, hint)
