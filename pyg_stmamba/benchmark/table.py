r"""What was measured, as Markdown."""

from collections.abc import Iterable

from .comparison import Comparison, Cost

COLUMNS = (
    "function",
    "shape",
    "peer",
    "ours [ms]",
    "peer [ms]",
    "times faster",
    "ours [MB]",
    "peer [MB]",
    "share of memory",
    "largest error",
)


def markdown_table(comparisons: Iterable[Comparison]) -> str:
    r"""Returns one row for each peer that agrees with ours, and below them one line for each
    that does not, of which nothing else is told, and for each that was left out."""
    comparisons = list(comparisons)
    rows = [row for comparison in comparisons for row in _rows(comparison)]
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, rows)]
    notes = _refusals(comparisons) + _absences(comparisons)
    return "\n".join(lines + ([""] + notes if notes else []))


def _rows(comparison: Comparison) -> list[list[str]]:
    start = [comparison.name, comparison.shape]
    ours = comparison.ours
    if ours is None:
        return []
    if not comparison.peers:
        milliseconds, megabytes = _cells(ours)
        return [[*start, "none", milliseconds, "-", "-", megabytes, "-", "-", "-"]]
    rows = []
    for name, peer in comparison.peers.items():
        (our_time, our_memory), (time, memory) = _cells(ours), _cells(peer)
        ratio = f"{peer.seconds / ours.seconds:.1f}"
        share = f"{ours.bytes / peer.bytes:.2f}" if peer.bytes else "-"
        error = f"{comparison.parity[name].worst[1]:.1e}"
        rows.append([*start, name, our_time, time, ratio, our_memory, memory, share, error])
    return rows


def _refusals(comparisons: list[Comparison]) -> list[str]:
    return [
        f"- NO PARITY, no times: {comparison.name}, {comparison.shape}, {name}: {found}"
        for comparison in comparisons
        for name, found in comparison.refused.items()
    ]


def _absences(comparisons: list[Comparison]) -> list[str]:
    functions: dict[tuple[str, str], list[str]] = {}
    for comparison in comparisons:
        for item in comparison.left_out.items():
            of_item = functions.setdefault(item, [])
            if comparison.name not in of_item:
                of_item.append(comparison.name)
    return [
        f"- left out: {name} ({'; '.join(of_item)}): {reason}"
        for (name, reason), of_item in functions.items()
    ]


def _cells(cost: Cost) -> tuple[str, str]:
    return f"{1e3 * cost.seconds:.3g}", f"{cost.bytes / 1e6:.3g}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
