r"""How the time of the selective scan grows with the number of steps.

Runs forward and backward on few rows for T = 256 to 8192, every implementation in turn at each
length, checks outputs and gradients against the reference in float64 first, and prints the median
times and the slope of their logarithm over that of T: 1 is linear.

    python benchmarks/scan_scaling.py
"""

import argparse
import math
import statistics
import time

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.ops.selective_scan import IMPLEMENTATIONS, example_inputs, selective_scan

TOLERANCE = 1e-5


def make_inputs(rows: int, steps: int, channels: int, states: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "u": draw(rows, steps, channels),
        "delta": 0.1 * draw(rows, steps, channels),
        "A": -(1.0 + torch.arange(states)).repeat(channels, 1),
        "B": draw(rows, steps, states),
        "C": draw(rows, steps, states),
        "D": draw(channels),
        "z": draw(rows, steps, channels),
        "delta_bias": draw(channels) - 3,
    }


def forward_backward(inputs: dict[str, Tensor], implementation: str) -> list[Tensor]:
    leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    y = selective_scan(**leaves, delta_softplus=True, implementation=implementation)
    assert isinstance(y, Tensor)
    y.square().mean().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves.values())]  # type: ignore[list-item]


def check_parity(inputs: dict[str, Tensor], implementation: str) -> None:
    exact = forward_backward({k: v.double() for k, v in inputs.items()}, "reference")
    for ours, right in zip(forward_backward(inputs, implementation), exact):
        error = float((ours - right).abs().max() / right.abs().max())
        if not error < TOLERANCE:
            raise SystemExit(f"{implementation} is off by {error:.1e}; no times without parity")


def seconds(inputs: dict[str, Tensor], implementation: str) -> float:
    start = time.perf_counter()
    forward_backward(inputs, implementation)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    names = [e.name for e in IMPLEMENTATIONS if not e.reasons_against(*example_inputs("cpu"))]
    for name in names:
        check_parity(make_inputs(2, 65, 8, given.states), name)

    lengths = [2**k for k in range(8, 14)]
    times: dict[str, list[float]] = {name: [] for name in names}
    for steps in lengths:
        inputs = make_inputs(given.rows, steps, given.channels, given.states)
        taken: dict[str, list[float]] = {name: [] for name in names}
        for repeat in range(given.repeats + 1):
            for name in names:
                spent = seconds(inputs, name)
                if repeat > 0:  # the first is a warm-up
                    taken[name].append(spent)
        for name in names:
            times[name].append(statistics.median(taken[name]))

    shape = f"{given.rows} rows, {given.channels} channels, {given.states} states"
    print(
        f"{shape}, forward + backward, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"\n| T | {' | '.join(f'{name}, ms' for name in names)} |")
    print("|---|" + "---|" * len(names))
    for place, steps in enumerate(lengths):
        print(f"| {steps} | {' | '.join(f'{1e3 * times[n][place]:.1f}' for n in names)} |")
    slopes = [np.polyfit([math.log(t) for t in lengths], np.log(times[n]), 1)[0] for n in names]
    print(f"| slope | {' | '.join(f'{slope:.2f}' for slope in slopes)} |")


if __name__ == "__main__":
    main()
