"""What a soak has shown, as a table and as a list of what is wrong."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.soak.faults import LOCAL
from tests.soak.kinds import THREADS
from tests.soak.ledger import Account, grown, idle_spans, standstill
from tests.soak.scene import Scene

RETRIES_TAKE = 3.0  #: seconds in the longest retry queue, and a timeout
JUDGED_FROM = 600.0  #: seconds; memory of a shorter run says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Seconds without a good message, and MiB."""

    dead: float = 15.0
    local: float = 2.0
    memory: float = 10.0


def standstills(scene: Scene) -> Mapping[str, list[tuple[float, str, float]]]:
    """Return, by kind of fault: the longest standstill of any queue after it, that queue, and that of retries."""
    away = scene.pauses(publishing=False)
    no_publishes = scene.pauses(publishing=True)
    idle = {queue: idle_spans(samples) for queue, samples in scene.seen.offered.items()}
    found: dict[str, list[tuple[float, str, float]]] = defaultdict(list)
    end = max((each[-1] for each in scene.ledger.times.values() if each), default=0.0)
    for each, then in zip(scene.happened, [*scene.happened[1:], None], strict=True):
        window = (each.over, max(each.over, then.began if then else end))
        by_queue = {q: standstill(scene.times_of(q), window, [*away, *idle[q]]) for q in scene.queues}
        worst = max(by_queue, key=lambda queue: by_queue[queue])
        retries = standstill(scene.ledger.retried, window, no_publishes)
        found[each.name].append((by_queue[worst], worst, retries))
    return found


def table(scene: Scene, account: Account, seconds: float) -> str:
    """Return the whole report."""
    done = sum(map(len, scene.ledger.times.values()))
    lines = [f"{'fault':22} {'times':>5} {'median':>7} {'worst':>7}  {'queue':14} {'retries: median':>15} {'worst':>7}"]
    for name, found in sorted(standstills(scene).items()):
        gaps, retries = [each[0] for each in found], [each[2] for each in found]
        worst = max(found)
        lines.append(
            f"{name:22} {len(found):5} {statistics.median(gaps):6.1f}s {worst[0]:6.1f}s  {worst[1]:14} "
            f"{statistics.median(retries):14.1f}s {max(retries):6.1f}s"
        )
    lines.append(
        f"{seconds:.0f} s, {len(scene.sent)} messages sent, {done} handled ({done / seconds:.0f}/s), "
        f"lost {len(account.lost)}, second copies {account.again} with equal hop ids, {account.after_failure} after a "
        f"call that failed, {len(account.unexplained)} unexplained; at most {max(scene.seen.depths)} ready"
    )
    for role, samples in memory(scene).items():
        tenth = max(1, len(samples) // 10)
        lines.append(f"memory of {role}, MiB: {' '.join(f'{each:.0f}' for each in samples[::tenth])}")
    if scene.seen.ends:
        lines.append(f"the service ended by itself {len(scene.seen.ends)} times: {', '.join(scene.seen.ends[:20])}")
    return "\n".join(lines)


def memory(scene: Scene) -> dict[str, list[float]]:
    """Return the samples of the process that was started, and of the largest of its children."""
    found: dict[str, list[float]] = {"the process": [], "the largest worker": []}
    for _, by_process in scene.seen.memory:
        first, *others = by_process.values()
        found["the process"].append(first)
        if others:
            found["the largest worker"].append(max(others))
    return {role: samples for role, samples in found.items() if samples}


def problems(scene: Scene, account: Account, bounds: Bounds, seconds: float) -> list[str]:
    """Return what is wrong; nothing when all held."""
    wrong = account.problems
    for name, found in sorted(standstills(scene).items()):
        kind = next(each.fault for each in scene.happened if each.name == name)
        bound = bounds.local if kind.bound == LOCAL else bounds.dead
        for gap, queue, retries in found:
            # half a second of the samples, and in threads a tenth of the load
            if gap > bound + (1.0 if queue == THREADS else 0.5):
                wrong.append(f"{name}: {gap:.1f} s without a good message in {queue}, allowed {bound:g}")
            if retries > bounds.dead + RETRIES_TAKE:
                wrong.append(
                    f"{name}: {retries:.1f} s without a retried message, allowed {bounds.dead + RETRIES_TAKE:g}"
                )
    for role, samples in memory(scene).items():
        if seconds >= JUDGED_FROM and grown(samples) > bounds.memory:
            wrong.append(f"memory of {role} grew by {grown(samples):.1f} MiB")
    return wrong


def noises(log: Path) -> list[str]:
    """Return how often the service logged what at WARNING or above, without what differs from line to line."""
    return _counted(
        " ".join(parts[2:])
        for line in log.read_text(errors="replace").splitlines()
        if len(parts := line.split(maxsplit=3)) == 4 and parts[2] in ("WARNING", "ERROR", "CRITICAL")
    )


def shortened(wrong: Iterable[str]) -> list[str]:
    """Return the kinds of what is wrong, with their numbers and an example."""
    examples: dict[str, str] = {}
    for each in wrong:
        examples.setdefault(_kind(each), each)
    counted = Counter(map(_kind, wrong))
    return [f"{count:6} {examples[kind]}" for kind, count in counted.most_common(40)]


def _kind(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)[:180]


def _counted(lines: Iterable[str]) -> list[str]:
    return [f"{count:6} {text}" for text, count in Counter(map(_kind, lines)).most_common(40)]
