from __future__ import annotations

from typing import Any, Literal

from einops import rearrange
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from pyg_stmamba.models.space_time_options import check_options
from pyg_stmamba.nn.blocks.factorized_encoder import FactorizedEncoder
from pyg_stmamba.nn.blocks.graph_pooling import count_graphs, mean_over_nodes
from pyg_stmamba.nn.blocks.pivot import unpivot
from pyg_stmamba.nn.blocks.space_time_input import SpaceTimeInput, read_space_time
from pyg_stmamba.nn.blocks.space_time_stack import SpaceTimeStack
from pyg_stmamba.nn.embedding.node import NodeEmbed
from pyg_stmamba.nn.embedding.patch import PatchEmbed, pair, unpatch
from pyg_stmamba.nn.embedding.space_time_position import SpaceTimePosition


class SpaceTimeTransformer(nn.Module):
    r"""A transformer over space and time, for videos, for fields on a grid and for graphs whose
    nodes carry time series, after `"Is Space-Time Attention All You Need for Video
    Understanding?" <https://arxiv.org/abs/2102.05095>`_ and, with
    :obj:`attention_type="factorized_encoder"`, `"ViViT: A Video Vision Transformer"
    <https://arxiv.org/abs/2103.15691>`_.

    .. math::
        \mathbf{h}^{(0)}_{i,t} = \mathrm{Embed}(\mathbf{x}_{i,t}) + \mathbf{e}_i + \mathbf{p}_t,
        \qquad [\mathbf{c}^{(l)}, \mathbf{h}^{(l)}] = \textrm{Block}_l
        ([\mathbf{c}^{(l-1)}, \mathbf{h}^{(l-1)}]), \qquad
        \mathbf{y} = \textrm{Head} \left( \mathrm{LN}(\mathrm{Pool}([\mathbf{c}^{(L)},
        \mathbf{h}^{(L)}])) \right)

    .. code-block:: python

        model = SpaceTimeTransformer(3, patch_size=8, image_size=64, num_classes=10)
        y = model(video)           # video[B, T, 3, 64, 64] -> [B, 10]
        model = SpaceTimeTransformer(2, out_channels=1, horizon=12, pool=None)
        y = model(data)            # data.x[N, T, 2] -> [N, 12, 1]

    Args:
        in_channels (int, optional): Channels of a frame, or of a step of a node.
            (default: :obj:`1`)
        dim (int, optional): Size :math:`D` of each token. (default: :obj:`64`)
        num_heads (int, optional): Number of heads. (default: :obj:`4`)
        num_layers (int, optional): Number of layers. (default: :obj:`4`)
        patch_size (int or tuple[int, int], optional): Height and width of a patch of a video;
            :obj:`None` for graphs. (default: :obj:`None`)
        image_size (int or tuple[int, int], optional): Height and width of a frame, needed with
            :obj:`patch_size`; the positions of other sizes are interpolated.
            (default: :obj:`None`)
        num_nodes (int, optional): Number of nodes of a fixed graph, each of which then has a
            learned vector :math:`\mathbf{e}_i`; :obj:`None` for any graphs.
            (default: :obj:`None`)
        num_frames (int, optional): Number of learned positions in time, interpolated for another
            number of steps; :obj:`None` for none. (default: :obj:`12`)
        attention_type (str, optional): :obj:`"divided"`, :obj:`"joint"`, :obj:`"space_only"`, see
            :class:`SpaceTimeStack`, or :obj:`"factorized_encoder"`, see
            :class:`FactorizedEncoder`. With :obj:`"space_only"` no frame knows its time.
            (default: :obj:`"divided"`)
        temporal_layers (int, optional): Number of layers over time of a factorized encoder.
            (default: :obj:`None`, as many as :obj:`num_layers`)
        pool (str, optional): :obj:`"cls"` gives each video or graph a class token and reads it,
            :obj:`"mean"` reads the mean of all tokens, :obj:`None` does neither.
            (default: :obj:`"cls"`)
        num_classes (int, optional): Number of classes of a video or graph.
            (default: :obj:`None`)
        out_channels (int, optional): Channels of what is read from the tokens: of each node, or
            of each pixel of a video. (default: :obj:`None`)
        horizon (int, optional): Number of steps ahead that are read from the last step of each
            token; :obj:`None` reads one output from each step. (default: :obj:`None`)
        mlp_ratio (float, optional): Inner size of the feed-forward networks for each of
            :obj:`dim`. (default: :obj:`4.0`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.0`)
        drop_path (float, optional): Probability that a sample goes past a branch of the last
            layer in training, with divided attention. (default: :obj:`0.0`)
        causal (bool, optional): Whether a step sees itself and earlier ones only; needs
            :obj:`pool` to be :obj:`"mean"` or :obj:`None`. (default: :obj:`False`)
        neighbors_only (bool, optional): Whether a node attends to its neighbors in the graph
            rather than to all nodes. (default: :obj:`False`)

    Shapes:
        - **input:** a video :math:`(B, T, C, H, W)`, or without :obj:`patch_size`
          :math:`(B, T, N, C)`, :math:`(|\mathcal{V}|, T, C)`, :math:`(|\mathcal{V}|, B, T, C)`
          with :obj:`nodes_first=True`, or a :class:`~torch_geometric.data.Data`; edges
          :math:`(2, |\mathcal{E}|)` or an adjacency matrix *(optional)*
        - **output:** with :obj:`num_classes` one row of scores a video or graph, :math:`(B, K)`;
          with :obj:`out_channels` the layout of the input, its :math:`C` channels and, with
          :obj:`horizon`, its :math:`T` steps replaced; with neither the pooled features
          :math:`(B, D)` or, with :obj:`pool=None`, all tokens in the layout of the input

    Raises:
        ValueError: If an option is unknown or does not go with another, or an input does not fit.
    """

    def __init__(
        self,
        in_channels: int = 1,
        dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 4,
        *,
        patch_size: int | tuple[int, int] | None = None,
        image_size: int | tuple[int, int] | None = None,
        num_nodes: int | None = None,
        num_frames: int | None = 12,
        attention_type: Literal["divided", "joint", "space_only", "factorized_encoder"] = "divided",
        temporal_layers: int | None = None,
        pool: Literal["cls", "mean"] | None = "cls",
        num_classes: int | None = None,
        out_channels: int | None = None,
        horizon: int | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        causal: bool = False,
        neighbors_only: bool = False,
    ) -> None:
        super().__init__()
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        check_options(**self._arguments)
        factorized = attention_type == "factorized_encoder"
        self.in_channels, self.dim, self.pool = in_channels, dim, pool
        self.attention_type, self.horizon = attention_type, horizon
        self.num_classes, self.out_channels = num_classes, out_channels
        self.embed: PatchEmbed | NodeEmbed
        places: int | tuple[int, int] | None = num_nodes
        if patch_size is not None and image_size is not None:
            self.embed = PatchEmbed(patch_size, in_channels, dim)
            places = self.embed.grid(*pair(image_size))
        else:
            self.embed = NodeEmbed(in_channels, dim)
        timeless = attention_type in ("space_only", "factorized_encoder")
        self.position = SpaceTimePosition(
            dim, places, None if timeless else num_frames, pool == "cls" and not factorized
        )
        self.encoder: SpaceTimeStack | FactorizedEncoder
        if factorized:
            self.encoder = FactorizedEncoder(
                dim,
                num_heads,
                num_layers,
                num_layers if temporal_layers is None else temporal_layers,
                mlp_ratio,
                dropout,
                "mean" if pool == "mean" else "cls",
                num_frames,
                neighbors_only,
            )
        else:
            self.encoder = SpaceTimeStack(
                attention_type,
                dim,
                num_heads,
                num_layers,
                mlp_ratio,
                dropout,
                drop_path,
                causal,
                neighbors_only,
            )
        self.norm = nn.Identity() if factorized else nn.LayerNorm(dim, eps=1e-6)
        self.head: nn.Linear | nn.Identity = nn.Identity()
        if num_classes is not None:
            self.head = nn.Linear(dim, num_classes)
        elif out_channels is not None:
            height, width = (1, 1) if patch_size is None else pair(patch_size)
            self.head = nn.Linear(dim, (horizon or 1) * out_channels * height * width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset(module)

    def config(self) -> dict[str, Any]:
        r"""Returns the arguments of the constructor."""
        return dict(self._arguments)

    @property
    def causal(self) -> bool:
        r"""Whether no output at a step depends on later ones."""
        return self._arguments["causal"] or self.attention_type == "space_only"

    def forward(
        self,
        x: Tensor | Data,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        mask: Tensor | None = None,
        batch: Tensor | None = None,
        *,
        nodes_first: bool = False,
    ) -> Tensor:
        r"""Runs the forward pass.

        Args:
            x (torch.Tensor or torch_geometric.data.Data): The video or the node features, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x`, :obj:`edge_index`, :obj:`batch` and :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): The edges among nodes or patches, source to
                target, or a dense matrix :obj:`adj[target, source]`; only
                :obj:`neighbors_only=True` uses them. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): Not used. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a value was observed, of the shape of
                :obj:`x` with or without channels; for node features only. What a missing value
                holds has no influence, that it is missing has. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            nodes_first (bool, optional): Whether a 4-D :obj:`x` is
                :math:`(|\mathcal{V}|, B, T, C)` rather than :math:`(B, T, |\mathcal{V}|, C)`.
                (default: :obj:`False`)
        """
        num_graphs = None
        if isinstance(x, Data):
            mask, num_graphs, nodes_first = x.get("x_mask"), count_graphs(x, x.batch), True
            x, edge_index, batch = x.x, x.edge_index, x.batch
        if isinstance(self.embed, PatchEmbed):
            self._check_video(x, mask)
            grid = self.embed.grid(*x.shape[-2:])
            inputs = read_space_time(self.embed(x), edge_index, channels=self.dim)
            h = inputs.x
        else:
            grid = None
            inputs = read_space_time(
                x, edge_index, None, None, batch, channels=self.in_channels, nodes_first=nodes_first
            )
            if mask is not None and mask.dim() > 2 and inputs.dense:
                mask = rearrange(mask, "b t n ... -> n b t ...")
            h = self.embed(inputs.x, mask)
        graphs = count_graphs(x, inputs.batch) if num_graphs is None else num_graphs
        h, cls = self.position(h, grid, graphs)
        if isinstance(self.encoder, FactorizedEncoder):
            pooled, _ = self.encoder.encode(inputs._replace(x=h), graphs)
            return self._read_pooled(pooled, inputs)
        h, cls = self.encoder(h, cls, inputs.edge_index, inputs.batch)
        if self.pool is None or self.out_channels is not None:
            return self._read_tokens(self.norm(h), inputs, grid)
        if cls is not None:
            return self._read_pooled(self.norm(cls).squeeze(-2), inputs)
        pooled = mean_over_nodes(self.norm(h), None, inputs.batch, graphs, over_time=True)
        return self._read_pooled(pooled.squeeze(-2), inputs)

    def _read_pooled(self, pooled: Tensor, inputs: SpaceTimeInput) -> Tensor:
        y = self.head(pooled)
        windows_of_one_graph = inputs.x.dim() == 4 and inputs.batch is None
        return y.squeeze(0) if windows_of_one_graph else y

    def _read_tokens(
        self, h: Tensor, inputs: SpaceTimeInput, grid: tuple[int, int] | None
    ) -> Tensor:
        if self.horizon is None:
            y = self.head(h)
        else:
            y = self.head(h[..., -1, :]).unflatten(-1, (self.horizon, -1))
        y = unpivot(y) if inputs.dense else y
        if grid is None or self.out_channels is None or not isinstance(self.embed, PatchEmbed):
            return y
        return unpatch(y, grid, self.embed.patch_size)

    def _check_video(self, x: Tensor, mask: Tensor | None) -> None:
        if x.dim() != 5 or x.size(2) != self.in_channels:
            raise ValueError(
                f"SpaceTimeTransformer with patch_size takes videos [B, T, {self.in_channels}, H, "
                f"W], got x of shape {list(x.shape)}; without patch_size it takes graphs"
            )
        if mask is not None:
            raise ValueError("a mask says which features of nodes were observed; videos take none")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.dim}, "
            f"num_layers={self._arguments['num_layers']}, attention_type={self.attention_type!r}, "
            f"pool={self.pool!r})"
        )
