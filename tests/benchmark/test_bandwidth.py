import torch

from pyg_stmamba.benchmark.bandwidth import bandwidth, copy_bandwidth, forward_passes


def test_bytes_count_once(rows, graph, cpu, monkeypatch):
    monkeypatch.setattr("pyg_stmamba.benchmark.bandwidth.kernel_seconds", lambda run, device: 1.0)
    assert copy_bandwidth(10, cpu) == 80
    scan, conv, attention = forward_passes(rows, graph, cpu, torch.float32)
    u, weights = 3 * 7 * 4, 3 * 7 * 2
    assert bandwidth(scan, cpu) == 4 * (4 * u + 2 * weights + 4 * 2 + 4)
    assert bandwidth(conv, cpu) == 4 * (2 * u + 4 * 4 + 4)
    logits = 9 * 2 * 5 * 2
    assert bandwidth(attention, cpu) == 4 * (2 * logits * 4 + 2 * logits) + 8 * 2 * 20


def test_it_runs(rows, graph, cpu):
    for forward in forward_passes(rows, graph, cpu, torch.bfloat16):
        assert bandwidth(forward, cpu) > 0
