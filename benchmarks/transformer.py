r"""The transformer encoder and decoder beside those of torch, and what their options cost.

The first table shows a training step of TransformerEncoder and of torch.nn.TransformerEncoder of
equal size with the same weights, with and without dropout, in turn in one process, after outputs
and gradients have been found equal; where they are not, there are no times. The second shows the
memory of a training step as sequences grow, with dropout and a padding mask, of each way to attend,
and the slope of its logarithm. The third shows what gradient checkpointing leaves in memory for
each layer more. The last shows how long it takes to decode one more step from what was kept, and
by running all steps before it again.

    python -m benchmarks.transformer --threads 1
"""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.benchmark import describe_machine, parity, peak_memory
from pyg_stmamba.benchmark.timing import interleaved_medians
from pyg_stmamba.nn import MultiAttention, TransformerDecoder, TransformerEncoder

CPU = torch.device("cpu")
# Sums over hundreds of terms in float32, relative to the largest value.
TOLERANCE = 1e-4
WAYS = ("standard", "xformer", "flash")


class Shape(NamedTuple):
    batch: int
    length: int
    d_model: int
    heads: int
    inner: int
    layers: int

    def __str__(self) -> str:
        return (
            f"{self.batch} x {self.length}, D {self.d_model}, {self.heads} heads, "
            f"{self.layers} layers"
        )


SHAPES = (
    Shape(207, 12, 64, 4, 256, 2),
    Shape(32, 96, 64, 4, 256, 3),
    Shape(8, 256, 256, 8, 1024, 2),
    Shape(2, 1024, 128, 4, 512, 2),
)


def encoders(shape: Shape, att_type: str, dropout: float) -> tuple[nn.Module, nn.Module]:
    r"""Returns our encoder and torch's with the same weights, on tokens."""
    ours = TransformerEncoder(
        shape.d_model,
        shape.d_model,
        shape.heads,
        shape.layers,
        shape.inner,
        dropout,
        use_swiglu=False,
        att_type=att_type,  # type: ignore[arg-type]
    )
    layer = nn.TransformerEncoderLayer(
        shape.d_model,
        shape.heads,
        shape.inner,
        dropout,
        "gelu",
        batch_first=True,
        norm_first=True,
    )
    norm = nn.LayerNorm(shape.d_model)
    theirs = nn.TransformerEncoder(layer, shape.layers, norm, enable_nested_tensor=False)
    with torch.no_grad():
        for mine, other in zip(ours.layers, theirs.layers):
            phases = [mine.self_attn_phase, mine.feed_forward_phase]
            pairs = [
                (other.self_attn, mine.self_attn),
                (other.linear1, mine.feed_forward.linear1),
                (other.linear2, mine.feed_forward.linear2),
                (other.norm1, phases[0].norm),
                (other.norm2, phases[1].norm),
            ]
            for target, source in pairs:
                target.load_state_dict(source.state_dict())
    return ours, WithProjection(ours, theirs)


class WithProjection(nn.Module):
    r"""Torch's encoder behind the projection and the positions that ours has."""

    def __init__(self, ours: TransformerEncoder, encoder: nn.Module) -> None:
        super().__init__()
        self.projection = nn.Linear(ours.d_model, ours.d_model)
        self.projection.load_state_dict(ours.input_projection.state_dict())
        self.positions, self.dropout = ours.pos_encoder, nn.Dropout(ours.dropout.p)
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        assert self.positions is not None
        return self.encoder(self.dropout(self.positions(self.projection(x))))


def training_step(model: nn.Module, x: Tensor, cotangent: Tensor | None = None) -> Tensor:
    model.zero_grad()
    y = model(x)
    y.backward(torch.ones_like(y) if cotangent is None else cotangent)
    return y


def check_parity(shape: Shape, att_type: str) -> None:
    r"""Refuses to go on where the two encoders disagree."""
    models = encoders(shape, att_type, 0.0)
    x = torch.randn(shape.batch, shape.length, shape.d_model)
    results = []
    cotangent = torch.randn_like(x)
    for model in models:
        leaf = x.clone().requires_grad_()
        y = training_step(model, leaf, cotangent)
        assert leaf.grad is not None
        results.append({"y": y.detach(), "x": leaf.grad})
    result = parity(*results, TOLERANCE)
    if not result.holds:
        raise SystemExit(f"{shape}, {att_type}: {result}; no times without parity")


def training_table(shapes: Sequence[Shape], dropout: float, repeats: int) -> str:
    what = f"training step, dropout {dropout:g}, ms"
    lines = [
        f"| {what} | torch | {' | '.join(WAYS)} | torch / best |",
        "|---" * 6 + "|",
    ]
    for shape in shapes:
        runs: list[Callable[[], object]] = []
        x = torch.randn(shape.batch, shape.length, shape.d_model)
        for way in WAYS:
            check_parity(shape, way)
            ours, theirs = encoders(shape, way, dropout)
            if not runs:
                runs.append(lambda model=theirs, x=x: training_step(model, x))
            runs.append(lambda model=ours, x=x: training_step(model, x))
        peer, *own = interleaved_medians(runs, CPU, repeats)
        cells = " | ".join(f"{1e3 * seconds:.1f}" for seconds in (peer, *own))
        lines.append(f"| {shape} | {cells} | {peer / min(own):.2f} |")
    return "\n".join(lines)


def memory_table(lengths: Sequence[int]) -> str:
    lines = [f"| MB, L | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 1) + "|"]
    found = {way: [attention_memory(way, length, 0.1) for length in lengths] for way in WAYS}
    for place, length in enumerate(lengths):
        cells = " | ".join(f"{found[way][place] / 1e6:.2f}" for way in WAYS)
        lines.append(f"| {length} | {cells} |")
    steps = math.log(lengths[-1] / lengths[0])
    slopes = " | ".join(f"{math.log(found[w][-1] / found[w][0]) / steps:.2f}" for w in WAYS)
    return "\n".join([*lines, f"| slope | {slopes} |"])


def attention_memory(way: str, length: int, dropout: float) -> int:
    attention = MultiAttention(64, 4, dropout, way)  # type: ignore[arg-type]
    for parameter in attention.parameters():
        parameter.grad = torch.zeros_like(parameter)
    x = torch.randn(1, length, 64)
    padding = torch.arange(length)[None] >= length - length // 8

    def step() -> None:
        attention(x, key_padding_mask=padding, is_causal=True)[0].sum().backward()

    return peak_memory(step, CPU)


def checkpointing_table() -> str:
    lines = ["| layers | MB | MB, checkpointing | GFLOP | GFLOP, checkpointing |", "|---" * 5 + "|"]
    memory: dict[bool, list[int]] = {False: [], True: []}
    depths = (2, 4, 8, 16)
    for layers in depths:
        flops = []
        for checkpointing in (False, True):
            model = TransformerEncoder(
                3, 64, 4, layers, 256, use_gradient_checkpointing=checkpointing
            )
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            x = torch.randn(8, 64, 3)
            memory[checkpointing].append(peak_memory(lambda: model(x).sum().backward(), CPU))  # noqa: B023
            with FlopCounterMode(display=False) as counter:
                model(x).sum().backward()
            flops.append(counter.get_total_flops())
        plain, saving = memory[False][-1], memory[True][-1]
        lines.append(
            f"| {layers} | {plain / 1e6:.2f} | {saving / 1e6:.2f} | {flops[0] / 1e9:.3f} | "
            f"{flops[1] / 1e9:.3f} |"
        )
    steps = depths[-1] - depths[0]
    plain, saving = ((memory[c][-1] - memory[c][0]) / steps for c in (False, True))
    ratio = f"{plain / saving:.1f} times less for each layer more"
    return "\n".join([*lines, "", f"{plain / 1e6:.2f} and {saving / 1e6:.2f} MB a layer: {ratio}."])


def decoding_table(steps: Sequence[int], repeats: int) -> str:
    torch.manual_seed(0)
    model = TransformerDecoder(8, 8, d_model=128, nhead=4, num_layers=4, dim_feedforward=512).eval()
    memory = torch.randn(4, 96, 128)
    values = torch.randn(4, max(steps), 8)
    lines = [
        "| tokens before | from what was kept, ms | all again, ms | times faster |",
        "|---" * 4 + "|",
    ]
    with torch.no_grad():
        for count in steps:
            state: dict = {}
            y = model(values[:, :count], memory, incremental_state=state)
            whole = model(values[:, :count], memory)
            if not torch.allclose(y, whole, atol=1e-4):
                raise SystemExit(f"{count} steps: the state gives other values; no times")
            last = values[:, count - 1 : count]
            runs: list[Callable[[], object]] = [
                lambda s=state, x=last: model.forward_one_step(x, memory, dict(s)),
                lambda n=count: model(values[:, :n], memory),
            ]
            kept, again = interleaved_medians(runs, CPU, repeats)
            cells = f"{1e3 * kept:.2f} | {1e3 * again:.1f} | {again / kept:.1f}"
            lines.append(f"| {count} | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of them")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(describe_machine(CPU))
    for dropout in (0.1, 0.0):
        print(f"\n{training_table(SHAPES[: given.shapes], dropout, given.repeats)}")
    print(f"\nattention alone, one training step, causal\n\n{memory_table(given.lengths)}")
    print(f"\n8 x 64 tokens, D 64, 4 heads\n\n{checkpointing_table()}")
    print(f"\nB 4, D 128, 4 layers, memory of 96\n\n{decoding_table(given.steps, given.repeats)}")


if __name__ == "__main__":
    main()
