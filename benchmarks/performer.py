r"""Performer attention beside performer-pytorch and softmax attention: cost and error.

The first tables show what a forward and backward pass takes as the number of steps grows, both
ways and causal: our PerformerAttention and performer-pytorch with the same directions (theirs
without the epsilon inside of features and sums, with which it computes something else), torch's
fused softmax attention, and softmax with all weights written out. All run in turn in one process,
after outputs and gradients of ours and of performer-pytorch have been found equal; without that
there are no times. Operations are the products that torch's counter knows, and what would not fit
into memory is counted but not run. The slopes are those of the logarithms: 1 is linear.

The last table shows how far outputs lie from exact softmax at equal numbers of features, with the
features that each draws by itself.

    python benchmarks/performer.py --threads 2
"""

import argparse
import importlib.metadata
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.benchmark import Contender, describe_machine, parity, peak_memory
from pyg_stmamba.benchmark.contender import of_function
from pyg_stmamba.benchmark.timing import interleaved_medians
from pyg_stmamba.nn import FullAttention, PerformerAttention

CPU = torch.device("cpu")
# Sums over thousands of terms in float32, relative to the largest value.
TOLERANCE = 1e-4
OURS, THEIRS, FUSED, EXPLICIT = "ours", "performer-pytorch", "torch SDPA", "softmax"
HEADS_FIRST = dict.fromkeys(("query", "key", "value", "y"), "b l h d -> b h l d")


class Costs(NamedTuple):
    seconds: float | None
    flops: int
    bytes: int


def performer_pytorch() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports what is deprecated
            from performer_pytorch import performer_pytorch as module
    except ImportError as error:
        raise SystemExit(f"performer-pytorch is needed: {error}") from error
    return module


def contenders(length: int, heads: int, op: PerformerAttention) -> list[Contender]:
    r"""Returns all that attend, ours first, each with its own copy of the same inputs."""
    torch.manual_seed(0)
    causal, dim = op.causal, op.dim_heads
    # Entries of about a half, as the default number of features serves them.
    query, key = (0.5 * torch.randn(1, length, heads, dim) for _ in range(2))
    inputs = {"query": query, "key": key, "value": torch.randn_like(query)}
    theirs = performer_pytorch()

    def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return op(query, key, value)[0]

    def peer(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        options = {"projection_matrix": op.projection, "eps": 0.0}
        queries = theirs.softmax_kernel(query, is_query=True, **options)
        keys = theirs.softmax_kernel(key, is_query=False, **options)
        if causal:
            return theirs.causal_linear_attention_noncuda(queries, keys, value, eps=0.0)
        return theirs.linear_attention(queries, keys, value)

    def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)

    def explicit(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = query @ key.mT * dim**-0.5
        if causal:
            future = torch.ones(length, length, dtype=torch.bool).triu(1)
            weights = weights.masked_fill(future, -torch.inf)
        return weights.softmax(-1) @ value

    return [
        of_function(OURS, ours, inputs),
        of_function(THEIRS, peer, inputs, HEADS_FIRST),
        of_function(FUSED, fused, inputs, HEADS_FIRST),
        of_function(EXPLICIT, explicit, inputs, HEADS_FIRST),
    ]


def check_parity(length: int, heads: int, op: PerformerAttention) -> None:
    r"""Refuses to go on where ours and performer-pytorch, or both kinds of softmax, disagree."""
    found = {contender.name: contender for contender in contenders(length, heads, op)}
    cotangent = torch.randn_like(found[OURS].step(None)[0])
    for name, right in ((OURS, THEIRS), (FUSED, EXPLICIT)):
        ours, theirs = (found[n].results(found[n].cotangent(cotangent)) for n in (name, right))
        result = parity(ours, theirs, TOLERANCE)
        if not result.holds:
            raise SystemExit(f"{name} and {right} disagree: {result}; no times without parity")


def counted(length: int, heads: int, op: PerformerAttention) -> dict[str, Costs]:
    r"""Counts operations and memory of a training pass without running it."""
    costs = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for contender in contenders(length, heads, op):
            cotangent = contender.cotangent(torch.empty(1, length, heads, op.dim_heads))
            # Of the fused attention torch counts nothing on a CPU.
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
                contender.forward().backward(cotangent)
            size = peak_memory(lambda c=contender, g=cotangent: c.step(g), CPU)  # type: ignore[misc]
            costs[contender.name] = Costs(None, flops.get_total_flops(), size)
    return costs


def measured(
    length: int, heads: int, op: PerformerAttention, repeats: int, gigabytes: float
) -> dict[str, Costs]:
    r"""Returns what each takes; those that need more memory than there is are not run."""
    costs = counted(length, heads, op)
    fitting = [c for c in contenders(length, heads, op) if costs[c.name].bytes < 1e9 * gigabytes]
    ours, *_ = fitting
    cotangent = torch.randn_like(ours.step(None)[0])
    gradients = [contender.cotangent(cotangent) for contender in fitting]
    runs = [lambda c=c, g=g: c.step(g) for c, g in zip(fitting, gradients)]  # type: ignore[misc]
    for contender, seconds in zip(fitting, interleaved_medians(runs, CPU, repeats)):
        costs[contender.name] = costs[contender.name]._replace(seconds=seconds)
    return costs


def slope(sizes: Sequence[int], values: Sequence[float | None]) -> float:
    r"""The slope of the logarithms, of those that there are."""
    points = np.array([point for point in zip(sizes, values) if point[1] is not None], float)
    if len(points) < 2:
        return math.nan
    x, y = np.log(points).T
    return float(np.polyfit(x, y, 1)[0])


def cost_tables(found: dict[int, dict[str, Costs]]) -> str:
    r"""Returns the tables of times, operations and memory, and how much faster ours is."""
    lengths, tables = list(found), []
    names = list(found[lengths[0]])
    parts: list[tuple[str, Callable[[Costs], float | None]]] = [
        ("ms", lambda costs: None if costs.seconds is None else 1e3 * costs.seconds),
        ("GFLOP", lambda costs: costs.flops / 1e9),
        ("MB at once", lambda costs: costs.bytes / 1e6),
    ]
    for unit, part in parts:
        lines = [f"| L, {unit} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        columns = {name: [part(found[length][name]) for length in lengths] for name in names}
        for place, length in enumerate(lengths):
            cells = (columns[name][place] for name in names)
            lines.append(row(length, ("-" if cell is None else f"{cell:.4g}" for cell in cells)))
        slopes = (f"{slope(lengths, columns[name]):.2f}" for name in names)
        tables.append("\n".join([*lines, row("slope", slopes)]))
    return "\n\n".join([*tables, ratios(found)])


def ratios(found: dict[int, dict[str, Costs]]) -> str:
    lines = []
    for length, costs in found.items():
        ours = costs[OURS].seconds
        assert ours is not None
        others = (
            f"{costs[name].seconds / ours:.1f} times as fast as {name}"  # type: ignore[operator]
            for name in (THEIRS, FUSED, EXPLICIT)
            if costs[name].seconds is not None
        )
        lines.append(f"- L = {length}: ours is {', '.join(others)}")
    return "\n".join(lines)


def row(first: object, cells: object) -> str:
    return f"| {first} | {' | '.join(cells)} |"  # type: ignore[arg-type]


def error_of(how: str, features: int, scale: float, length: int, dim: int, draws: int) -> float:
    r"""The median error relative to exact softmax over draws of inputs and features."""
    errors = []
    for draw in range(draws):
        torch.manual_seed(draw)
        query, key, value = (torch.randn(1, length, 4, dim) for _ in range(3))
        query, key = scale * query, scale * key
        exact = FullAttention()(query, key, value)[0]
        found = attention(how, features, dim)(query, key, value)
        errors.append(float((found - exact).norm() / exact.norm()))
    return statistics.median(errors)


def attention(how: str, features: int, dim: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    r"""Returns an attention by so many features, drawn as its library draws them."""
    if how == THEIRS:
        module = performer_pytorch().FastAttention(dim, features)
        return lambda *given: module(*(x.transpose(1, 2) for x in given)).transpose(1, 2)
    if how == "ours, hyperbolic":  # two features of each direction
        op = PerformerAttention(dim, features // 2, feature_map="hyperbolic")
    else:
        feature_map = "positive" if how == "ours, positive" else "optimal"
        op = PerformerAttention(dim, features, feature_map=feature_map)  # type: ignore[arg-type]
    return lambda *given: op(*given)[0]


def error_table(counts: Sequence[int], length: int, dim: int, draws: int) -> str:
    r"""Returns the errors of all at equal numbers of features."""
    hows = ["ours", "ours, positive", "ours, hyperbolic", THEIRS]
    lines = [f"| entries, features | {' | '.join(hows)} |", "|---" * (len(hows) + 1) + "|"]
    for scale, law in ((0.5, "N(0, 1/2)"), (1.0, "N(0, 1)")):
        for count in counts:
            errors = (f"{error_of(how, count, scale, length, dim, draws):.3f}" for how in hows)
            lines.append(row(f"{law}, {count}", errors))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2**k for k in range(10, 15)])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dim", type=int, default=32, help="channels of a head")
    parser.add_argument("--features", type=int, help="directions (default: that of the operator)")
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--draws", type=int, default=9, help="for the errors")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="what needs more is not run")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    # The features of performer-pytorch, so that both compute the same.
    ops = [
        PerformerAttention(given.dim, given.features, causal=causal, feature_map="positive")
        for causal in (False, True)
    ]
    print(describe_machine(CPU))
    print(f"- performer-pytorch {importlib.metadata.version('performer-pytorch')}")
    print(
        f"- B 1, H {given.heads}, d {given.dim}, {ops[0].nb_features} features, one training pass"
    )
    for op in ops:
        check_parity(min(given.lengths), given.heads, op)
        found = {
            length: measured(length, given.heads, op, given.repeats, given.gigabytes)
            for length in given.lengths
        }
        print(f"\n{'causal' if op.causal else 'both ways'}\n\n{cost_tables(found)}")
    length = min(given.lengths)
    print(f"\nrelative error against exact softmax, L {length}, d {given.dim}\n")
    print(error_table(given.counts, length, given.dim, given.draws))


if __name__ == "__main__":
    main()
