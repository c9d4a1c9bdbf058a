from __future__ import annotations

from torch import Tensor, nn


class SpatialOperator(nn.Module):
    r"""An operator over the nodes of a graph, the same at each instant.

    Nodes come first and channels last in :obj:`x[N, ..., C]`; whatever lies between (windows,
    steps) are instants that never mix.
    Edges run from source to target, :obj:`edge_index[0]` to :obj:`edge_index[1]`, and may carry
    features, static :obj:`[E, D]` or one for each step :obj:`[E, ..., T, D]`.
    """

    local: bool = True  # whether a node sees no further than its neighbours

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        r"""Runs over all instants.

        Args:
            x (torch.Tensor): The node features.
            edge_index (torch.Tensor): The edges, source to target.
            edge_attr (torch.Tensor, optional): The edge features. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node, ascending; only operators that
                look beyond the neighbours need it. (default: :obj:`None`)

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, *, F_{in})`, edges :math:`(2, |\mathcal{E}|)`,
              edge features :math:`(|\mathcal{E}|, D)` or :math:`(|\mathcal{E}|, *, D)`
            - **output:** :math:`(|\mathcal{V}|, *, F_{out})`
        """
        raise NotImplementedError

    def _check(self, x: Tensor, channels: int) -> None:
        if x.dim() < 2 or x.size(-1) != channels:
            raise ValueError(
                f"{type(self).__name__} expects x[N, ..., C] with nodes first and "
                f"C = {channels} channels last, got a tensor of shape {list(x.shape)}"
            )
