r"""The block as users compose it of PyG and torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
import torch_geometric
from einops import rearrange
from torch import Tensor, nn
from torch_geometric.nn import DenseGATConv, GATConv

from pyg_stmamba.nn import TemporalMamba
from pyg_stmamba.ops.selective_scan import selective_scan_reference


class RepeatedGAT(GATConv):
    r"""PyG's convolution on a graph whose edges are repeated for each slice of
    :obj:`x[B, T, N, C]`, with torch-scatter or without."""

    torch_scatter = False

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:  # type: ignore[override]
        with _with_torch_scatter(self.torch_scatter):
            return super().forward(x.flatten(0, 2), edges).view(*x.shape[:3], -1)


class RepeatedGATByTorchScatter(RepeatedGAT):
    torch_scatter = True


class DenseGATOverSlices(DenseGATConv):
    r"""PyG's convolution on a dense matrix, for each slice of :obj:`x[B, T, N, C]`."""

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x.flatten(0, 1), adjacency).view(*x.shape[:3], -1)


class LoopMamba(TemporalMamba):
    r"""Mamba as a plain torch program, with a loop over the steps."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        inner = F.silu(self.conv1d(inner.transpose(1, 2))[..., : x.size(1)]).transpose(1, 2)
        sizes = [self.dt_rank, self.d_state, self.d_state]
        delta, B, C = self.x_proj(inner).split(sizes, dim=-1)
        delta = F.linear(delta, self.dt_proj.weight)
        A = -self.A_log.exp()
        return self.out_proj(loop_scan(inner, delta, A, B, C, self.D, z, self.dt_proj.bias))


class TorchBlock(nn.Module):
    r"""The phases of :class:`~pyg_stmamba.nn.STMambaBlock` on :obj:`x[B, T, N, C]`, from any two
    modules."""

    def __init__(self, spatial: nn.Module, temporal: nn.Module, channels: int) -> None:
        super().__init__()
        self.spatial = spatial
        self.temporal = temporal
        self.norm_spatial = nn.LayerNorm(channels)
        self.norm_temporal = nn.LayerNorm(channels)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.norm_spatial(x + self.spatial(x, edges))
        rows = rearrange(x, "b t n c -> (b n) t c")
        rows = self.norm_temporal(rows + self.temporal(rows))
        return rearrange(rows, "(b n) t c -> b t n c", b=x.size(0))


def loop_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    y, _ = selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus=True)
    return y


@contextmanager
def _with_torch_scatter(used: bool) -> Iterator[None]:
    typing: Any = torch_geometric.typing
    before = typing.WITH_TORCH_SCATTER
    typing.WITH_TORCH_SCATTER = used
    try:
        yield
    finally:
        typing.WITH_TORCH_SCATTER = before
