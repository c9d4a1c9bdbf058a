r"""How time and memory of a training step grow with N, E, T and B, drawn as one PNG.

Each of the scan, the graph attention and the block runs beside the peer that any torch
installation gives: a loop over the steps, PyG's GATConv on repeated edges, and both together. One
size is doubled at a time, the others stay. The slopes of the logarithms stand in the legends: 1 is
linear. A point at which outputs and gradients do not agree is left out and named.

    python benchmarks/scaling.py --out scaling.png
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FormatStrFormatter, LogLocator, NullLocator
from tqdm import tqdm

from pyg_stmamba.benchmark import (
    Case,
    Cost,
    block_case,
    compare,
    graph_attention_case,
    scan_case,
    shapes,
)
from pyg_stmamba.benchmark.report import checked_device
from pyg_stmamba.benchmark.shapes import GraphShape, RowShape
from pyg_stmamba.data.whole_file import written_whole
from pyg_stmamba.visualization.style import house_style, new_figure, png


def scan_of_block(shape: GraphShape, device: torch.device) -> Case:
    return scan_case(RowShape(shape.nodes * shape.windows, shape.steps, 2 * shape.channels), device)


# Ours, the peer beside it, and the colour of both.
FUNCTIONS: dict[str, tuple[Callable[..., Case], str, str]] = {
    "scan": (scan_of_block, "torch loop", "#0072B2"),
    "graph attention": (graph_attention_case, "GATConv", "#D55E00"),
    "block": (block_case, "GATConv + torch loop", "#009E73"),
}
# What is doubled, and which functions depend on it.
AXES = {
    "nodes": ("nodes N", ("scan", "graph attention", "block")),
    "edges": ("edges E", ("graph attention", "block")),
    "steps": ("steps T", ("scan", "graph attention", "block")),
    "windows": ("windows B", ("scan", "graph attention", "block")),
}


class Point(NamedTuple):
    size: int
    ours: Cost
    peer: Cost


def measure(
    start: GraphShape, doublings: int, device: str, repeats: int
) -> dict[tuple[str, str], list[Point]]:
    r"""Returns the points of each function along each axis."""
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    work = [
        (axis, function, getattr(start, axis) * 2**doubling)
        for axis, (_, functions) in AXES.items()
        for function in functions
        for doubling in range(doublings + 1)
    ]
    where = checked_device(device)
    for axis, function, size in tqdm(work, desc="scaling"):
        make, peer, _ = FUNCTIONS[function]
        case = make(start._replace(**{axis: size}), where)
        case = case._replace(peers=[other for other in case.peers if other.name == peer])
        result = compare(case, where, repeats)
        if result.ours is not None and peer in result.peers:
            point = Point(size, result.ours, result.peers[peer])
            found[axis, function].append(point)
        else:
            tqdm.write(f"{function}, {axis} {size}: {result.refused or case.left_out}")
    return found


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


@house_style
def draw(found: dict[tuple[str, str], list[Point]]) -> bytes:
    r"""Draws time on the left and memory on the right, one row for each axis; peers are dashed."""
    figure, panels = new_figure(len(AXES), 2, height=16.0)
    for row, (axis, (label, functions)) in enumerate(AXES.items()):
        time, memory = panels[2 * row : 2 * row + 2]
        for function in functions:
            points = found[axis, function]
            draw_line(time, function, points, lambda cost: 1e3 * cost.seconds)
            draw_line(memory, function, points, lambda cost: cost.bytes / 1e6)
        for panel, quantity in ((time, "milliseconds"), (memory, "megabytes at once")):
            scale(panel, sorted({point.size for name in functions for point in found[axis, name]}))
            panel.set_xlabel(label)
            panel.set_ylabel(quantity)
            panel.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8, handlelength=3
            )
    return png(figure)


def draw_line(
    axes: Axes, function: str, points: list[Point], value: Callable[[Cost], float]
) -> None:
    _, peer, color = FUNCTIONS[function]
    sizes = [point.size for point in points]
    for name, dash, values in (
        (function, "-", [value(point.ours) for point in points]),
        (peer, "--", [value(point.peer) for point in points]),
    ):
        label = f"{name}, slope {slope(sizes, values):.2f}"
        axes.plot(sizes, values, dash, color=color, marker="o", markersize=3.5, label=label)


def scale(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%d"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
    for ticks in (axes.xaxis, axes.yaxis):
        ticks.set_minor_locator(NullLocator())


def main(arguments: Sequence[str] | None = None, start: GraphShape | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="The PNG to write.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--doublings", type=int, default=4)
    given = parser.parse_args(arguments)
    start = start or shapes.METR_LA._replace(nodes=128, edges=512, windows=1)
    found = measure(start, given.doublings, given.device, given.repeats)
    with written_whole(given.out) as temporary:
        temporary.write_bytes(draw(found))
    print(given.out)


if __name__ == "__main__":
    main()
