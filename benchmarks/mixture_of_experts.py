r"""The mixture of experts beside that of Hugging Face's Mixtral, and beside a dense network.

The table shows what a forward and backward pass takes: ours, MixtralSparseMoeBlock with its loop
over experts (experts_implementation="eager"), and one dense network of the size of an expert, over
the same tokens, k times (what the experts would take if they were free to find). All run in turn in
one process, after outputs and gradients of ours and of Mixtral have been found equal; without that
there are no times. Operations are the products that torch's counter knows.

    python benchmarks/mixture_of_experts.py --threads 2
"""

import argparse
import importlib.metadata
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.benchmark import Contender, describe_machine, parity, peak_memory
from pyg_stmamba.benchmark.timing import interleaved_medians
from pyg_stmamba.nn.transformer.mixture_of_experts import MixtureOfExperts

CPU = torch.device("cpu")
TOLERANCE = 1e-5
OURS, THEIRS, DENSE = "ours", "Mixtral", "dense, k times"


class Shape(NamedTuple):
    batch: int
    length: int
    d_model: int
    d_ff: int
    num_experts: int
    top_k: int

    def __str__(self) -> str:
        return (
            f"{self.batch} x {self.length}, d {self.d_model}, f {self.d_ff}, "
            f"E {self.num_experts}, k {self.top_k}"
        )


SHAPES = [
    Shape(4, 256, 256, 512, 8, 2),
    Shape(8, 96, 64, 128, 8, 2),
    Shape(2, 512, 512, 1024, 8, 2),
]


def mixtral(shape: Shape) -> nn.Module:
    try:
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    except ImportError as error:
        raise SystemExit(f"transformers is needed: {error}") from error
    config = MixtralConfig(  # type: ignore[call-arg]
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_local_experts=shape.num_experts,
        num_experts_per_tok=shape.top_k,
        experts_implementation="eager",
    )
    return MixtralSparseMoeBlock(config)


def contenders(shape: Shape) -> list[Contender]:
    r"""Returns all three, ours first, with the same weights and copies of the same tokens."""
    torch.manual_seed(0)
    op = MixtureOfExperts(shape.d_model, shape.d_ff, shape.num_experts, shape.top_k)
    nn.init.normal_(op.router.weight)  # so that tokens part as after training
    tokens = torch.randn(shape.batch, shape.length, shape.d_model)
    other = mixtral(shape)
    other.load_state_dict(
        {
            "gate.weight": op.router.weight,
            "experts.gate_up_proj": op.gate_up_proj,
            "experts.down_proj": op.down_proj,
        }
    )
    names = ("router", "gate_up", "down")
    weights = dict(zip(names, (op.router.weight, op.gate_up_proj, op.down_proj)))
    copied: list[Tensor] = [other.get_parameter("gate.weight")]
    copied += [other.get_parameter(f"experts.{name}_proj") for name in names[1:]]
    first, last = (w[0].detach().clone().requires_grad_() for w in (op.gate_up_proj, op.down_proj))
    x, x2, x3 = (tokens.clone().requires_grad_() for _ in range(3))

    def dense() -> Tensor:
        h = F.linear(x3.repeat(shape.top_k, 1, 1), first)
        gate, up = h.chunk(2, -1)
        return F.linear(F.silu(gate) * up, last).unflatten(0, (shape.top_k, -1)).sum(0)

    return [
        Contender(OURS, lambda: op(x)[0], {"x": x, **weights}),
        Contender(THEIRS, lambda: other(x2), {"x": x2, **dict(zip(names, copied))}),
        Contender(DENSE, dense, {"x": x3, "gate_up": first, "down": last}),
    ]


def check_parity(found: Sequence[Contender], cotangent: Tensor) -> None:
    r"""Refuses to go on where ours and Mixtral disagree."""
    ours, theirs, _ = (contender.results(cotangent) for contender in found)
    result = parity(ours, theirs, TOLERANCE)
    if not result.holds:
        raise SystemExit(f"{OURS} and {THEIRS} disagree: {result}; no times without parity")


def measured(shape: Shape, repeats: int) -> list[str]:
    r"""Returns the rows of a shape, after the check."""
    found = contenders(shape)
    cotangent = torch.randn(shape.batch, shape.length, shape.d_model)
    check_parity(found, cotangent)
    runs = [lambda c=c: c.step(cotangent) for c in found]  # type: ignore[misc]
    seconds = interleaved_medians(runs, CPU, repeats)
    rows = []
    for contender, run, taken in zip(found, runs, seconds):
        with FlopCounterMode(display=False) as counter:
            contender.forward().backward(cotangent)
        rows.append(
            f"| {shape} | {contender.name} | {1e3 * taken:.2f} | "
            f"{counter.get_total_flops() / 1e9:.3f} | {peak_memory(run, CPU) / 1e6:.1f} | "
            f"{taken / seconds[0]:.2f} |"
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape",
        type=int,
        nargs=6,
        action="append",
        metavar=("B", "L", "D", "F", "E", "K"),
        help="a shape, instead of all; may be repeated",
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    print(describe_machine(CPU))
    print(f"- transformers {importlib.metadata.version('transformers')}")
    print("- one forward and backward pass, float32\n")
    print("| tokens | | ms | GFLOP | MB at once | times ours |")
    print("|---" * 6 + "|")
    for shape in [Shape(*sizes) for sizes in given.shape or SHAPES]:
        print("\n".join(measured(shape, given.repeats)))


if __name__ == "__main__":
    main()
