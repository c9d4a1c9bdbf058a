r"""The standing check on a GPU: parity of every kernel, times beside the peers, a short training.

From the root of a checkout, on a machine whose Python has torch, triton, torch-geometric, einops,
numba and lightning; nothing is downloaded:

    python -m benchmarks.gpu_check --out gpu_check.md

Without a GPU it says so and ends with exit code 2; ``--device cpu`` goes through everything at
tiny sizes. Exit code 1 means that something is not equal to the reference, or failed.

mamba-ssm and causal-conv1d are measured where they can be imported, and left out with a note
elsewhere. Bring their source packages and build them beforehand; each ``setup.py`` lists the
architectures to compile for, of which only that of the card should stay:

    pip download --no-deps --no-build-isolation --no-binary :all: causal-conv1d mamba-ssm
    for archive in causal_conv1d-*.tar.gz mamba_ssm-*.tar.gz; do tar xf $archive; done
    export CAUSAL_CONV1D_FORCE_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE
    pip install --no-deps --no-build-isolation --target peers causal_conv1d-*/ mamba_ssm-*/
    PYTHONPATH=peers python -m benchmarks.gpu_check --out gpu_check.md
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyg_stmamba.benchmark import (
    block_case,
    compare,
    conv_case,
    describe_machine,
    graph_attention_case,
    markdown_table,
    scan_case,
    shapes,
)
from pyg_stmamba.benchmark.bandwidth import bandwidth, copy_bandwidth, forward_passes
from pyg_stmamba.benchmark.cases import Build
from pyg_stmamba.benchmark.op_parity import check_implementation, implementations_of, odd_op_cases
from pyg_stmamba.benchmark.report import Report
from pyg_stmamba.benchmark.shapes import GraphShape, RowShape
from pyg_stmamba.datasets import FreewayTraffic
from pyg_stmamba.models import STMamba

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Sizes(NamedTuple):
    r"""How large everything is, and the seconds that each part may take."""

    longest: int
    rows: int
    many_short: RowShape
    longer: RowShape
    few_long: RowShape
    graphs: tuple[GraphShape, ...]
    copied: int
    channels: int
    epochs: int
    step_minutes: int
    parity_seconds: float
    timing_seconds: float
    training_minutes: float


FULL = Sizes(
    longest=500,
    rows=65_537,
    many_short=RowShape(64 * 207, 12),
    longer=RowShape(64 * 207, 64),
    few_long=shapes.LONGEST,
    graphs=(shapes.METR_LA, shapes.METR_LA_BATCH, shapes.CFD, shapes.CFD_LONG, shapes.LARGEST_CA),
    copied=2**28,
    channels=64,
    epochs=3,
    step_minutes=5,
    parity_seconds=180,
    timing_seconds=180,
    training_minutes=1.5,
)
TINY = Sizes(
    longest=1,
    rows=20,
    many_short=RowShape(6, 3, 4, 2),
    longer=RowShape(2, 5, 4, 2),
    few_long=RowShape(1, 9, 4, 2),
    graphs=(GraphShape("tiny", 9, 20, 3, 2, 8, 2),),
    copied=2**10,
    channels=4,
    epochs=1,
    step_minutes=60,
    parity_seconds=30,
    timing_seconds=30,
    training_minutes=0.5,
)


def in_time(items: Iterable[Any], seconds: float, part: str, notes: list[str]) -> Iterator[Any]:
    r"""Goes through the items until the time is over, and notes if it was."""
    items, start = list(items), time.perf_counter()
    for done, item in enumerate(items):
        if time.perf_counter() - start > seconds:
            notes.append(f"- {part}: stopped after {done} of {len(items)}, {seconds:g} s were over")
            return
        yield item


def parity_part(device: torch.device, sizes: Sizes, failures: list[str]) -> list[str]:
    r"""Every implementation beside the reference in float64: how many cases, the worst error."""
    worst: dict[tuple[str, str, torch.dtype], tuple[int, float]] = {}
    notes: list[str] = []
    checks = (
        (case, entry, dtype)
        for case in odd_op_cases(sizes.longest, sizes.rows)
        for entry in implementations_of(case.op)
        for dtype in DTYPES
    )
    for case, entry, dtype in in_time(checks, sizes.parity_seconds, "parity", notes):
        what = f"{case.op} by {entry.name}, {dtype}, {case.sizes}"
        found = attempt(what, failures, check_implementation, case, entry, device, dtype)
        if found is None or isinstance(found, list):
            continue
        if not found.holds:
            failures.append(f"- {what}: {found}")
        count, error = worst.get((case.op, entry.name, dtype), (0, 0.0))
        worst[case.op, entry.name, dtype] = count + 1, max(error, found.worst[1])
    lines = [
        "| operation | implementation | dtype | cases | largest error |",
        "|---|---|---|---|---|",
    ]
    for (op, name, dtype), (count, error) in worst.items():
        dtype_name = str(dtype).removeprefix("torch.")
        lines.append(f"| {op} | {name} | {dtype_name} | {count} | {error:.1e} |")
    return [*lines, "", *notes]


def timing_part(device: torch.device, sizes: Sizes, failures: list[str]) -> list[str]:
    r"""Ours beside the peers."""
    builds: list[Build] = [
        functools.partial(scan_case, sizes.many_short),
        functools.partial(scan_case, sizes.many_short, dtype=torch.bfloat16),
        functools.partial(graph_attention_case, sizes.graphs[0]),
        functools.partial(block_case, sizes.graphs[0]),
        functools.partial(conv_case, sizes.many_short),
        functools.partial(scan_case, sizes.longer),
        functools.partial(scan_case, sizes.few_long),
    ]
    for shape in sizes.graphs[1:]:
        builds.append(functools.partial(graph_attention_case, shape))
        builds.append(functools.partial(block_case, shape))
    notes: list[str] = []
    comparisons = []
    for build in in_time(builds, sizes.timing_seconds, "times", notes):
        what = f"{build.func.__name__} {build.args[0]}"
        found = attempt(what, failures, lambda build=build: compare(build(device=device), device))
        if found is not None:
            comparisons.append(found)
            failures += [f"- {what}: {name}: {off}" for name, off in found.refused.items()]
    return [markdown_table(comparisons), "", *notes]


def bandwidth_part(device: torch.device, sizes: Sizes, failures: list[str]) -> list[str]:
    r"""The share of the copy bandwidth that forward passes reach, every byte counted once."""
    of_copy = copy_bandwidth(sizes.copied, device)
    lines = [f"A copy moves {of_copy / 1e9:.0f} GB/s.", ""]
    lines += ["| forward pass | GB/s | share of a copy |", "|---|---|---|"]
    for dtype in (torch.float32, torch.bfloat16):
        for forward in forward_passes(sizes.many_short, sizes.graphs[0], device, dtype):
            what = f"{forward.op}, {dtype}"
            rate = attempt(f"forward pass of {what}", failures, bandwidth, forward, device)
            if rate is not None:
                lines.append(f"| {what} | {rate / 1e9:.0f} | {rate / of_copy:.2f} |")
    return lines


def training_part(device: torch.device, sizes: Sizes, failures: list[str]) -> list[str]:
    r"""A few epochs on the built-in network."""
    from pyg_stmamba.training import fit

    with tempfile.TemporaryDirectory() as root:
        dataset = FreewayTraffic(root, 1, step_minutes=sizes.step_minutes, progress=False)
        graph, protocol = dataset[0], dataset.protocol
        torch.manual_seed(0)
        options = STMamba.data_arguments(graph, protocol)
        model = STMamba(**options, channels=sizes.channels, d_state=min(16, sizes.channels))
        result = fit(
            model,
            graph,
            protocol,
            accelerator=device.type,
            devices=1,
            max_epochs=sizes.epochs,
            max_time=sizes.training_minutes,
            progress=False,
        )
    lines = ["| epoch | training loss | validation error |", "|---|---|---|"]
    for row in result.history:
        lines.append(f"| {row['epoch']} | {row['train_loss']:.4f} | {row['val_mae']:.4f} |")
    losses = [row["train_loss"] for row in result.history]
    if not losses[-1] <= losses[0]:
        failures.append(f"- training: the loss went from {losses[0]:.4f} to {losses[-1]:.4f}")
    error = result.metrics["test"]["average"]["mae"]
    best = min(scores["average"]["mae"] for scores in result.metrics["baselines"].values())
    return [*lines, "", f"Error on the test set {error:.3f}, best baseline {best:.3f}."]


def attempt(what: str, failures: list[str], run: Callable[..., Any], *arguments: Any) -> Any:
    r"""Runs one check; that it failed is a result, and the others go on."""
    try:
        return run(*arguments)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        failures.append(f"- {what}: {type(error).__name__}: {first}")
        return None


PARTS: dict[str, Callable[[torch.device, Sizes, list[str]], list[str]]] = {
    "Parity with the reference in float64": parity_part,
    "Training steps beside the peers": timing_part,
    "Forward passes beside a copy": bandwidth_part,
    "Training on the built-in network": training_part,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.md"))
    parser.add_argument("--commit", help="Where the machine has no checkout to ask.")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA GPU here; --device cpu goes through the check at tiny sizes")
        return 2
    device, sizes = torch.device(given.device), FULL if given.device == "cuda" else TINY

    failures: list[str] = []
    lines = ["# GPU check" if sizes is FULL else "# GPU check, at tiny sizes without a GPU", ""]
    lines.append(describe_machine(device, given.commit))
    for title, part in PARTS.items():
        start = time.perf_counter()
        found = attempt(title, failures, part, device, sizes, failures) or []
        spent = f"{time.perf_counter() - start:.0f} s"
        print(f"{title}: {spent}", flush=True)
        lines += ["", f"## {title}", "", *found, "", f"It took {spent}."]
        # A check that is killed leaves what it found so far.
        verdict = ["", "## Failures", "", *(failures or ["none"])]
        Report("\n".join(lines + verdict), not failures).write(given.out)
    print(given.out.read_text(encoding="utf-8"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
