"""STMambaBlock as one more layer of an ordinary PyG model.

The graphs of a batch have different sizes, their nodes carry white noise over time, and each node
has to tell the mean over itself and its neighbors one step ago. Known beforehand:

* from the past and the graph the answer follows exactly: explained variance 1,
* without the temporal phase nothing is known of it, since noise does not remember: at most 0.

GCNConv by itself would take the time axis of ``x [N, T, C]`` for nodes; ``Snapshot`` lets any
convolution of PyG see one instant at a time.
"""

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import add_self_loops, erdos_renyi_graph, scatter

from pyg_stmamba.nn import Snapshot, STMambaBlock


class Model(nn.Module):
    def __init__(self, channels: int, temporal: str | None) -> None:
        super().__init__()
        self.own = nn.Linear(1, channels)
        self.around = Snapshot(GCNConv(1, channels))
        self.block = STMambaBlock(channels, dropout=0.0, temporal=temporal, norm="pre")
        self.readout = nn.Linear(channels, 1)

    def forward(self, data: Data) -> Tensor:
        h = self.own(data.x) + self.around(data.x, data.edge_index)
        h = self.block(h, data.edge_index)
        return self.readout(h)


def random_graph(generator: torch.Generator, num_steps: int) -> Data:
    num_nodes = int(torch.randint(5, 16, (1,), generator=generator))
    edge_index = erdos_renyi_graph(num_nodes, edge_prob=0.3)
    x = torch.randn(num_nodes, num_steps, 1, generator=generator)
    source, target = add_self_loops(edge_index, num_nodes=num_nodes)[0]
    mean = scatter(x[source], target, dim_size=num_nodes, reduce="mean")
    y = torch.cat([torch.zeros(num_nodes, 1, 1), mean[:, :-1]], dim=1)
    return Data(x=x, y=y, edge_index=edge_index)


def explained_variance(
    temporal: str | None, num_batches: int, channels: int = 32, num_steps: int = 12
) -> float:
    """Trains on fresh graphs and tests on others."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    def fresh_batch(num_graphs: int = 16) -> Batch:
        return Batch.from_data_list([random_graph(generator, num_steps) for _ in range(num_graphs)])

    model = Model(channels, temporal)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_batches)
    for _ in range(num_batches):
        batch = fresh_batch()
        loss = nn.functional.mse_loss(model(batch), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    model.eval()
    batch = fresh_batch(64)
    with torch.inference_mode():
        error = nn.functional.mse_loss(model(batch), batch.y)
    return 1 - (error / batch.y.square().mean()).item()


def main(num_batches: int = 150) -> dict[str, float]:
    result = {
        "with Mamba": explained_variance("mamba", num_batches),
        "without a temporal phase": explained_variance(None, num_batches // 5),
    }
    for name, value in result.items():
        print(f"explained variance {name}: {value:.3f}")
    return result


if __name__ == "__main__":
    main()
