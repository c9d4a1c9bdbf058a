from __future__ import annotations

import math

import torch
from einops import rearrange, repeat
from torch import Tensor

from pyg_stmamba.data import Scaler, TemporalGraph
from pyg_stmamba.models.imputation_baselines import interpolate, inverse_distances, nearest_nodes
from pyg_stmamba.models.imputer import Imputer, observed_entries
from pyg_stmamba.models.spatio_temporal_performer import SpatioTemporalPerformer

FEATURES = 13


class PerformerImputer(Imputer):
    r"""Fills the gaps of each node from its own series and those of its nearest nodes with a
    :class:`SpatioTemporalPerformer`, which forecasts a window from itself.

    .. math::
        \hat{x}_{i,t} = c_t + \tilde{a}_{i,t} + \mathrm{Performer} \left( \mathbf{a}_i,
        \mathbf{a}_{j_1}, \ldots, \mathbf{a}_{j_k}; \mathbf{f}_i \right)_t, \qquad
        a_{i,t} = x_{i,t} - c_t

    Here :math:`c_t + o_i` is the least-squares fit to the observed values of the window, so that
    :math:`c_t` is the level of all nodes (interpolated where none is observed);
    :math:`\tilde{a}` is the linear interpolation over time of what a node shows beyond it, and
    :math:`j_1, \ldots, j_k` are the nearest nodes. So the model learns a correction of a good
    guess, and the same one for all nodes. The time features :math:`\mathbf{f}_i` of encoder
    and decoder say, for each step, when it is, how far the node's last and next observed values
    are, what :math:`c`, :math:`\tilde{a}`, plain linear interpolation and the mean of the others,
    weighted by their inverse distances, are there, and how much is observed.

    It works in standardized units within, takes any number of nodes, and wants to be fitted on the
    graph whose gaps it fills.

    Args:
        channels (int, optional): Number of channels, each imputed on its own.
            (default: :obj:`1`)
        window (int, optional): Largest number of steps of a window. (default: :obj:`36`)
        num_neighbors (int, optional): Number :math:`k` of nearest nodes whose series are seen one
            by one, beside what the time features say of all; each costs as much as the node
            itself. (default: :obj:`0`)
        metric (str, optional): How far nodes are apart, see :class:`NearestStations`.
            (default: :obj:`"great-circle"`)
        d_model (int, optional): Size of a token. (default: :obj:`32`)
        n_heads (int, optional): Number of heads. (default: :obj:`2`)
        n_encoder_layers (int, optional): Number of layers of the encoder. (default: :obj:`1`)
        n_decoder_layers (int, optional): Number of layers of the decoder. (default: :obj:`1`)
        nb_features (int, optional): Number of random features of the global attention.
            (default: :obj:`32`)
        dropout (float, optional): Dropout of the feed-forward networks. (default: :obj:`0.1`)

    Shapes:
        - **input:** values and their mask :math:`(N, *, T, C)`, times of the day and days of the
          week :math:`(*, T)`, or a window :class:`~torch_geometric.data.Data`
        - **output:** :math:`(N, *, T, C)`, in original units
    """

    neighbors: Tensor
    weights: Tensor

    def __init__(
        self,
        channels: int = 1,
        window: int = 36,
        num_neighbors: int = 0,
        metric: str = "great-circle",
        d_model: int = 32,
        n_heads: int = 2,
        n_encoder_layers: int = 1,
        n_decoder_layers: int = 1,
        nb_features: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_neighbors, self.metric = num_neighbors, metric
        self.scaler = Scaler(channels)
        self.register_buffer("neighbors", torch.empty(0, 0, dtype=torch.long))
        self.register_buffer("weights", torch.empty(0, 0))
        self.performer = SpatioTemporalPerformer(
            1 + num_neighbors,
            1,
            FEATURES,
            d_model,
            window,
            n_heads=n_heads,
            n_encoder_layers=n_encoder_layers,
            n_decoder_layers=n_decoder_layers,
            # Values are hidden by whoever trains the imputer.
            data_dropout_embedding=None,
            dropout_ff=dropout,
            nb_features=nb_features,
            # Softmax attention over one series of a window is the cheaper one.
            local_self_attention="full",
            local_cross_attention="full",
        )

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; what was fitted to data stays."""
        self.performer.reset_parameters()

    @torch.no_grad()
    def fit(self, graph: TemporalGraph, steps: Tensor | None = None) -> PerformerImputer:
        r"""Fits the scaler on the observed entries and ranks the nodes by distance.

        Args:
            graph (TemporalGraph): The series.
            steps (torch.Tensor, optional): Which steps count, boolean :math:`[T]`.
                (default: :obj:`None`, all)
        """
        if graph.num_nodes <= self.num_neighbors:
            raise ValueError(
                f"num_neighbors={self.num_neighbors} needs more than {graph.num_nodes} nodes"
            )
        self.scaler.fit(graph.values, observed_entries(graph, steps))
        neighbors, distances = nearest_nodes(graph, self.metric, steps)
        itself = torch.arange(graph.num_nodes, device=neighbors.device).unsqueeze(1)
        self.neighbors = torch.cat([itself, neighbors[:, : self.num_neighbors]], 1)
        weights = torch.zeros(graph.num_nodes, graph.num_nodes, device=neighbors.device)
        weights = weights.scatter(1, neighbors, inverse_distances(distances))
        self.weights = weights / weights.sum(1, keepdim=True)
        return self

    def estimate(
        self, x: Tensor, x_mask: Tensor, time_of_day: Tensor | None, day_of_week: Tensor | None
    ) -> Tensor:
        num_nodes, channels = x.size(0), x.size(-1)
        if self.neighbors.size(0) != num_nodes:
            raise ValueError(
                f"PerformerImputer knows {self.neighbors.size(0)} node(s) and got {num_nodes}: fit "
                "it on the graph first"
            )
        # Every channel of every window is a series of its own: (N, S, T).
        values = rearrange(self.scaler(x), "n ... t c -> n (... c) t")
        observed = rearrange(x_mask, "n ... t c -> n (... c) t")
        times = _calendar(time_of_day, day_of_week, values, channels)

        common = _common_level(values, observed)
        anomaly = (values - common).masked_fill(~observed, 0.0)
        guess = _interpolate(anomaly, observed)
        weight = torch.einsum("ij,jst->ist", self.weights, observed.to(x.dtype))
        of_others = torch.einsum("ij,jst->ist", self.weights, anomaly)
        of_others = of_others / weight.clamp(min=torch.finfo(x.dtype).eps)
        features = [
            *times,
            *_distances_to_observed(observed),
            common,
            guess,
            _interpolate(values, observed) - common - guess,
            of_others,
            (of_others - guess) * (weight > 0),
            observed,
            weight,
            observed.to(x.dtype).mean(0, keepdim=True),
        ]
        f = torch.stack([feature.to(x.dtype).expand_as(values) for feature in features], -1)
        f = rearrange(f, "n s t f -> (n s) t f")
        y, given = (
            rearrange(series[self.neighbors], "n k s t -> (n s) t k")
            for series in (anomaly, observed)
        )
        correction = self.performer(f, y, f, observed_mask=given)
        correction = rearrange(correction, "(n s) t 1 -> n s t", n=num_nodes)
        estimate = common + guess + correction
        estimate = rearrange(estimate, "n (w c) t -> n w t c", c=channels).reshape(x.shape)
        return self.scaler.inverse(estimate)


def _common_level(values: Tensor, observed: Tensor) -> Tensor:
    r"""The level of all nodes at each step: means of what is observed, freed by alternating least
    squares from what makes the nodes differ, so that it does not jump with the nodes that are
    missing; interpolated where none is observed."""
    nodes, steps = observed.sum(0, keepdim=True), observed.sum(-1, keepdim=True)
    offset = values.new_zeros(())
    for _ in range(3):
        level = (values - offset).masked_fill(~observed, 0.0).sum(0, keepdim=True)
        level = _interpolate(level / nodes.clamp(min=1), nodes > 0)
        offset = (values - level).masked_fill(~observed, 0.0).sum(-1, keepdim=True)
        offset = offset / steps.clamp(min=1)
    return level


def _interpolate(series: Tensor, observed: Tensor) -> Tensor:
    return interpolate(series.unsqueeze(-1), observed.unsqueeze(-1)).squeeze(-1)


def _distances_to_observed(observed: Tensor) -> tuple[Tensor, Tensor]:
    r"""Logarithms of one plus the steps since the last and until the next observed step, which are
    at most the length of the window."""
    num_steps = observed.size(-1)
    steps = torch.arange(num_steps, device=observed.device).expand_as(observed)
    last = steps.where(observed, -num_steps).cummax(-1).values
    following = steps.where(observed, 2 * num_steps).flip(-1).cummin(-1).values.flip(-1)
    since, until = (steps - last).clamp(max=num_steps), (following - steps).clamp(max=num_steps)
    return since.float().log1p(), until.float().log1p()


def _calendar(
    time_of_day: Tensor | None, day_of_week: Tensor | None, series: Tensor, channels: int
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The number of the step, and the times of the day and of the week as angles, which are 0
    without a calendar."""
    num_series, num_steps = series.shape[1:]
    # In units in which neighboring steps differ by a part of a period.
    step = torch.arange(num_steps, device=series.device) / 4
    if time_of_day is None or day_of_week is None:
        none = series.new_zeros(num_series, num_steps)
        return step, none, none
    angles = (2 * math.pi * time_of_day, 2 * math.pi * (day_of_week + time_of_day) / 7)
    day, week = (
        repeat(angle.reshape(-1, num_steps), "w t -> (w c) t", c=channels) for angle in angles
    )
    return step, day, week
