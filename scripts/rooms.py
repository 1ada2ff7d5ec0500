"""Print which rooms of the package import which, so that a change of its structure can be measured.

python scripts/rooms.py                                    the package, and the packages in it that have rooms
python scripts/rooms.py amqpflow.services                  one package
python scripts/rooms.py --source ../before amqpflow.services   the same in another checkout

A room is a direct child of the package: a module or a package. An arrow goes from a room to another one that it
imports, however many imports there are; imports for type checkers count. A cell is the number of imports.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PACKAGES = ("amqpflow", "amqpflow.services", "amqpflow.planning", "amqpflow.topology", "amqpflow.cli")

Arrows = Counter[tuple[str, str]]


def room_of(module: str, package: str) -> str:
    """Return the room of a module below the package."""
    return module.removeprefix(f"{package}.").partition(".")[0]


def count_arrows(imports: Iterable[tuple[str, str]], package: str) -> Arrows:
    """Count the imports between each two rooms of the package."""
    inside = f"{package}."
    arrows: Arrows = Counter()
    for importer, imported in imports:
        if importer.startswith(inside) and imported.startswith(inside):
            pair = room_of(importer, package), room_of(imported, package)
            arrows[pair] += pair[0] != pair[1]
    return +arrows


def sort_rooms(rooms: Iterable[str], arrows: Arrows) -> list[list[str]]:
    """Return the rooms from the top down; rooms that import each other in a circle are one element."""
    below = {room: {imported for importer, imported in arrows if importer == room} for room in rooms}
    reachable = {room: _reachable(room, below) for room in below}
    groups = {frozenset({room, *(other for other in reachable[room] if room in reachable[other])}) for room in below}
    return sorted(
        (sorted(group) for group in groups),
        key=lambda group: (-len(set().union(*(reachable[room] for room in group)) - set(group)), group),
    )


def _reachable(room: str, below: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [room]
    while waiting:
        new = below[waiting.pop()] - found
        found |= new
        waiting.extend(new)
    return found


def render(package: str, rooms: dict[str, int], arrows: Arrows) -> Iterator[str]:
    """Yield the lines of the table; `rooms` has the number of modules of each room."""
    order = sort_rooms(rooms, arrows)
    circles = [group for group in order if len(group) > 1]
    circle = "; ".join(f"a circle: {', '.join(group)}" for group in circles) or "no circle"
    yield f"{package}: {len(rooms)} rooms, {sum(rooms.values())} modules, {len(arrows)} arrows, {circle}"
    named = [room for group in order for room in group]
    columns = [room for room in named if any(imported == room for _, imported in arrows)]
    if len(columns) > 15:  # a table that is wider than a screen
        for room in named:
            imported = [f"{other} {arrows[room, other]}" for other in columns if arrows[room, other]]
            yield f"  {room} ({rooms[room]}): {', '.join(imported) or '-'}"
        return
    width = max(len(room) for room in named) + 6
    yield " " * (width + 2) + "  ".join(columns)
    for room in named:
        cells = (f"{arrows[room, other] or '.':>{len(other)}}" for other in columns)
        yield f"  {f'{room} ({rooms[room]})':<{width}}{'  '.join(cells)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", nargs="*", help=f"default: {', '.join(PACKAGES)}")
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout to read")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.source.resolve()))
    graph = grimp.build_graph("amqpflow", exclude_type_checking_imports=False, cache_dir=None)
    imports = [(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)]
    tables = []
    for package in arguments.package or PACKAGES:
        if package not in graph.modules:
            parser.error(f"{package} is not a package of {arguments.source}")
        inside = [module for module in graph.modules if module.startswith(f"{package}.")]
        rooms = dict(Counter(room_of(module, package) for module in inside))
        if rooms:
            tables.append("\n".join(render(package, rooms, count_arrows(imports, package))))
    print("\n\n".join(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
