import torch
import torch_geometric

from pyg_stmamba.benchmark.torch_block import LoopMamba, RepeatedGAT, RepeatedGATByTorchScatter
from pyg_stmamba.nn import TemporalMamba


def test_the_loop_is_the_mamba_of_ours():
    ours, loop = TemporalMamba(6), LoopMamba(6)
    loop.load_state_dict(ours.state_dict())
    x = torch.randn(3, 9, 6)
    torch.testing.assert_close(loop(x), ours(x))


def test_torch_scatter_is_used_only_where_it_is_measured(monkeypatch):
    seen = []

    def conv(self, x, edges):
        seen.append(torch_geometric.typing.WITH_TORCH_SCATTER)
        return x

    monkeypatch.setattr(torch_geometric.nn.GATConv, "forward", conv)
    before = torch_geometric.typing.WITH_TORCH_SCATTER
    for kind in (RepeatedGAT, RepeatedGATByTorchScatter):
        kind(4, 2, heads=2)(torch.randn(1, 2, 3, 4), torch.zeros(2, 0, dtype=torch.int64))
    assert seen == [False, True]
    assert before == torch_geometric.typing.WITH_TORCH_SCATTER
