"""The block under torch.compile, in CUDA graphs and without waiting for a GPU."""

import shutil

import pytest
import torch
from torch import Tensor

from pyg_stmamba.nn import STMambaBlock
from tests.laws import close

NODES, STEPS, CHANNELS = 5, 6, 8
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def training_step(block: STMambaBlock, x: Tensor, *graph: Tensor) -> list[Tensor]:
    """The output and the gradients of the input and of all parameters."""
    y = block(x, *graph)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), [x, *block.parameters()])]


def forward(block: STMambaBlock, x: Tensor, *graph: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [block(x, *graph)]


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("edge_dim", [None, 2])
def test_a_training_step_is_one_graph(backend, edge_dim):
    block = STMambaBlock(CHANNELS, d_state=4, num_heads=2, edge_dim=edge_dim, dropout=0.0)
    x = torch.randn(NODES, STEPS, CHANNELS, requires_grad=True)
    graph = [EDGES] if edge_dim is None else [EDGES, torch.randn(EDGES.size(1), edge_dim)]
    compiled = torch.compile(block, fullgraph=True, backend=backend)
    results = [training_step(module, x, *graph) for module in (compiled, block)]
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-5)


def test_dynamo_finds_no_graph_break():
    block, x = STMambaBlock(CHANNELS), torch.randn(NODES, STEPS, CHANNELS, requires_grad=True)
    found = torch._dynamo.explain(block)(x, EDGES)
    assert (found.graph_break_count, found.graph_count) == (0, 1), found.break_reasons


def on_gpu() -> tuple[STMambaBlock, Tensor, Tensor]:
    x = torch.randn(NODES, STEPS, CHANNELS, device="cuda", requires_grad=True)
    return STMambaBlock(CHANNELS, dropout=0.0).cuda(), x, EDGES.cuda()


@needs_gpu
@pytest.mark.parametrize("step", [forward, training_step])
def test_a_captured_step_is_replayed_on_other_numbers(step):
    block, x, edge_index = on_gpu()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(block, x, edge_index)
    torch.cuda.current_stream().wait_stream(side)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(block, x, edge_index)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for actual, expected in zip(captured, step(block, x, edge_index), strict=True):
        close(actual, expected, 1e-5)


@needs_gpu
def test_a_step_never_waits_for_the_gpu():
    block, x, edge_index = on_gpu()
    training_step(block, x, edge_index)  # what is compiled or sorted once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        training_step(block, x, edge_index)
        forward(block, x, edge_index)
    finally:
        torch.cuda.set_sync_debug_mode("default")
