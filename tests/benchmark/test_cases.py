import pytest
import torch

from pyg_stmamba.benchmark import (
    SETS,
    block_case,
    cases,
    compare,
    conv_case,
    graph_attention_case,
    scan_case,
)
from pyg_stmamba.benchmark.parity import parity

MAKE = {
    "selective scan": scan_case,
    "causal conv1d": conv_case,
    "graph attention": graph_attention_case,
    "STMambaBlock, training step": block_case,
}
NAMES = {
    "selective scan": ["torch loop", "mambapy"],
    "causal conv1d": ["torch conv1d"],
    "graph attention": ["GATConv", "DenseGATConv"],
    "STMambaBlock, training step": [
        "GATConv + torch loop",
        "GATConv + mambapy",
        "GATConv + MambaMixer",
    ],
}


@pytest.mark.parametrize("name", MAKE)
def test_all_peers_agree_in_outputs_and_gradients(name, rows, graph):
    for module in ("mambapy", "transformers"):
        pytest.importorskip(module)
    case = MAKE[name](graph if MAKE[name] in (graph_attention_case, block_case) else rows)
    assert case.name == name
    found = [peer.name for peer in case.peers if "torch-scatter" not in peer.name]
    assert found == NAMES[name]
    cotangent = torch.randn_like(case.ours.step(None)[0])
    ours = case.ours.results(cotangent)
    assert len(ours) == 1 + len(case.ours.leaves)
    for peer in case.peers:
        assert parity(ours, peer.results(peer.cotangent(cotangent)), case.tolerance).holds, (
            peer.name
        )


def test_a_peer_that_needs_too_much_memory_is_left_out(graph, cpu, monkeypatch):
    monkeypatch.setitem(cases.LARGEST_TENSOR, "cpu", 4 * 9 * 9 * 5 * 2 * 2 - 1)
    case = graph_attention_case(graph)
    assert case.left_out["DenseGATConv"] == "one of its tensors takes 0.0 GB"
    monkeypatch.setitem(cases.LARGEST_TENSOR, "cpu", 0)
    case = block_case(graph, train=False)
    assert case.peers == []
    assert compare(case, cpu, 1).ours is not None


def test_other_dtypes(rows):
    case = scan_case(rows, dtype=torch.bfloat16)
    assert case.name == "selective scan, bfloat16"
    assert case.tolerance == 2e-2
    assert case.ours.step(None)[0].dtype == torch.bfloat16


def test_the_sets():
    assert set(SETS) == {"short", "all"}
    assert [build.func for build in SETS["short"]] == list(MAKE.values())
    assert {build.func for build in SETS["all"]} == set(MAKE.values())
