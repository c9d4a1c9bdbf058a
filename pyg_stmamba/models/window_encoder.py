from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyg_stmamba.data import Scaler
from pyg_stmamba.models.weekly_profile import WeeklyProfile
from pyg_stmamba.nn.norm import InstanceStatistics, RevIN

# Minutes over which the weekly profile is smoothed.
SMOOTHING = 10.0


class Encoding(NamedTuple):
    r"""What :class:`WindowEncoder` returns.

    Args:
        h (torch.Tensor): The hidden representation of each step :math:`(N, *, T, F)`.
        tokens (torch.Tensor): What is known of each step :math:`(N, *, T, K)`.
        context (torch.Tensor): What else is known of the forecast :math:`(N, *, L)`.
        statistics (InstanceStatistics, optional): Mean and standard deviation of each window
            :math:`(N, *, 1, C)` in scaled units, where windows are normalized.
        profile (torch.Tensor, optional): The weekly profile of the steps ahead
            :math:`(N, *, H, C_y)`, normalized, where there is one.
    """

    h: Tensor
    tokens: Tensor
    context: Tensor
    statistics: InstanceStatistics | None = None
    profile: Tensor | None = None


class WindowEncoder(nn.Module):
    r"""Turns values in original units, flags of what is missing, and times into a hidden
    representation of each step at each node.

    .. math::
        \mathbf{v}_{i,t} &= \left[ \tfrac{x_{i,t} - \mu}{\sigma} \, \Vert \, m_{i,t} \, \Vert \,
        \tfrac{p_{i,t} - \mu}{\sigma} \right], \qquad
        \mathbf{h}_{i,t} = \mathbf{W} \mathbf{v}_{i,t} + \mathbf{e}^{\textrm{day}}_t
        + \mathbf{e}^{\textrm{week}}_t + \mathbf{e}^{\textrm{node}}_i

    with the tokens :math:`\mathbf{v}`, and the context that holds the embeddings of the last step
    and the weekly profile :math:`p` of the steps ahead. Missing values (:math:`m = 0`) enter as
    the mean.

    Args:
        in_channels (int): Channels of the series.
        channels (int): Width of the hidden representation.
        horizon (int): Number of steps ahead.
        target_channels (Sequence[int]): The channels of the weekly profile.
        num_nodes (int, optional): Number of nodes of a fixed graph. (default: :obj:`None`)
        steps_per_day (int, optional): Number of times of the day. (default: :obj:`None`)
        node_embedding (bool, optional): Whether to embed the nodes of a fixed graph.
            (default: :obj:`True`)
        time_embedding (bool, optional): Whether to embed the time of the day and the day of the
            week, if there is :obj:`steps_per_day`. (default: :obj:`True`)
        weekly_profile (bool, optional): Whether to add the weekly profile.
            (default: :obj:`False`)
        input_dropout (float, optional): Probability with which an observed value is hidden in
            training. (default: :obj:`0.0`)
        instance_norm (bool, optional): Whether to normalize the scaled values of each node in
            each window, and the weekly profile with them, by the mean and standard deviation of
            what is observed there. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(N, *, T, C)`
        - **output:** an :class:`Encoding`
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        horizon: int,
        target_channels: Sequence[int],
        num_nodes: int | None = None,
        steps_per_day: int | None = None,
        node_embedding: bool = True,
        time_embedding: bool = True,
        weekly_profile: bool = False,
        input_dropout: float = 0.0,
        instance_norm: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= input_dropout < 1:
            raise ValueError(f"input_dropout={input_dropout} must be a probability below 1")
        node_embedding = node_embedding and num_nodes is not None
        time_embedding = time_embedding and steps_per_day is not None
        self.channels, self.horizon = channels, horizon
        self.target_channels = tuple(target_channels)
        # None where the encoder does without.
        self.num_nodes = num_nodes if node_embedding or weekly_profile else None
        self.steps_per_day = steps_per_day if time_embedding or weekly_profile else None
        self.input_dropout = input_dropout

        self.scaler = Scaler(in_channels)
        self.instance_norm = RevIN(in_channels) if instance_norm else None
        self.weekly_profile = None
        if weekly_profile:
            if num_nodes is None or steps_per_day is None:
                raise ValueError(
                    "weekly_profile=True needs a fixed graph and a calendar, got "
                    f"num_nodes={num_nodes}, steps_per_day={steps_per_day}"
                )
            self.weekly_profile = WeeklyProfile(
                self.target_channels, SMOOTHING, num_nodes, steps_per_day
            )
        num_targets = len(self.target_channels) if weekly_profile else 0
        self.token_channels = 2 * in_channels + num_targets
        self.context_channels = channels * (2 * time_embedding + node_embedding)
        self.context_channels += horizon * num_targets

        self.value_embedding = nn.Linear(self.token_channels, channels)
        self.time_of_day_embedding = self.day_of_week_embedding = self.node_embedding = None
        if time_embedding and steps_per_day is not None:
            self.time_of_day_embedding = nn.Embedding(steps_per_day, channels)
            self.day_of_week_embedding = nn.Embedding(7, channels)
        if node_embedding and num_nodes is not None:
            self.node_embedding = nn.Embedding(num_nodes, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; scaler and profile stay as they are."""
        self.value_embedding.reset_parameters()
        if self.instance_norm is not None:
            self.instance_norm.reset_parameters()
        for module in self.children():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)

    def forward(
        self,
        x: Tensor,
        x_mask: Tensor | None = None,
        time_of_day: Tensor | None = None,
        day_of_week: Tensor | None = None,
        batch: Tensor | None = None,
        profile: Tensor | None = None,
    ) -> Encoding:
        self._check_nodes(x, batch)
        values, observed, statistics = self._observations(x, x_mask)
        tokens = [values, observed.to(values.dtype)]
        if self.steps_per_day is not None and (time_of_day is None or day_of_week is None):
            raise ValueError(
                f"a model with steps_per_day={self.steps_per_day} needs time_of_day and "
                "day_of_week; give the data timestamps, or build it with steps_per_day=None"
            )
        context, ahead = [], None
        if self.weekly_profile is not None:
            if profile is None:
                profile = self._look_up_profile(x, time_of_day, day_of_week, batch)
            expected = self.normalize(profile, statistics)
            tokens.append(expected[..., : x.size(-2), :])
            ahead = expected[..., x.size(-2) :, :]
            context.append(ahead.flatten(-2))
        token = torch.cat(tokens, dim=-1)
        h = self.value_embedding(token)
        for embedding in self.embeddings(x, time_of_day, day_of_week, batch):
            h = h + embedding
            context.append(embedding.expand_as(h)[..., -1, :])
        empty = h.new_empty(*h.shape[:-2], 0)
        return Encoding(h, token, torch.cat([*context, empty], dim=-1), statistics, ahead)

    def normalize(self, y: Tensor, statistics: InstanceStatistics | None = None) -> Tensor:
        r"""Brings values of the target channels into the units of the representation, the inverse
        of :meth:`to_units`.

        Args:
            y (torch.Tensor): The values :math:`(N, *, H, C_y)`.
            statistics (InstanceStatistics, optional): Those of the encoding.
                (default: :obj:`None`)
        """
        y = self.scaler(y, self.target_channels)
        if self.instance_norm is not None and statistics is not None:
            channels = self.target_channels
            y, _ = self.instance_norm.norm(y, stats=statistics, channels=channels)
        return y

    def to_units(self, y: Tensor, statistics: InstanceStatistics | None = None) -> Tensor:
        r"""Brings forecasts of the target channels back to original units.

        Args:
            y (torch.Tensor): The forecasts :math:`(N, *, H, C_y)`.
            statistics (InstanceStatistics, optional): Those of the encoding.
                (default: :obj:`None`)
        """
        if self.instance_norm is not None and statistics is not None:
            y = self.instance_norm.denorm(y, statistics, self.target_channels)
        return self.scaler.inverse(y, self.target_channels)

    def _observations(
        self, x: Tensor, x_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, InstanceStatistics | None]:
        """The normalized values, which are there, and the statistics of the windows."""
        observed = torch.ones_like(x, dtype=torch.bool) if x_mask is None else x_mask
        if observed.shape != x.shape or observed.dtype != torch.bool:
            raise ValueError(
                f"x_mask must be boolean and of the shape of x, {tuple(x.shape)}, got "
                f"{tuple(observed.shape)} and dtype {observed.dtype}"
            )
        if self.training and self.input_dropout > 0:
            observed = observed & (torch.rand_like(x) >= self.input_dropout)
        values = self.scaler(x).masked_fill(~observed, 0.0)
        if self.instance_norm is None:
            return values, observed, None
        values, statistics = self.instance_norm.norm(values, observed)
        return values, observed, statistics

    def _look_up_profile(
        self, x: Tensor, time_of_day: Any, day_of_week: Any, batch: Tensor | None
    ) -> Tensor:
        lookup: Any = self.weekly_profile
        profile = lookup(time_of_day, day_of_week, self.horizon)
        if batch is not None and profile.dim() == 4:
            # The nodes of the first graph, then those of the second, and so on.
            profile = profile.transpose(0, 1)
        return profile.reshape(*x.shape[:-2], x.size(-2) + self.horizon, -1)

    def embeddings(
        self, x: Tensor, time_of_day: Any, day_of_week: Any, batch: Tensor | None = None
    ) -> list[Tensor]:
        r"""The embeddings of time of day, day of week and node, those that there are, each of a
        shape that broadcasts.

        Args:
            x (torch.Tensor): What they belong to, :math:`(N, *, T, C)`.
            time_of_day (torch.Tensor, optional): The times of its steps.
            day_of_week (torch.Tensor, optional): Their days.
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
        """
        embeddings = []
        if self.time_of_day_embedding is not None and self.day_of_week_embedding is not None:
            slots = self.time_of_day_embedding.num_embeddings
            slot = (time_of_day * slots).round().long() % slots
            of_time = (self.time_of_day_embedding(slot), self.day_of_week_embedding(day_of_week))
            embeddings += [time if batch is None else time[batch] for time in of_time]
        if self.node_embedding is not None:
            nodes = self.node_embedding.weight
            nodes = nodes.repeat(x.size(0) // nodes.size(0), 1)
            embeddings.append(nodes.reshape(x.size(0), *[1] * (x.dim() - 2), self.channels))
        return embeddings

    def _check_nodes(self, x: Tensor, batch: Tensor | None) -> None:
        if self.num_nodes is None:
            return
        if x.size(0) % self.num_nodes or (batch is None and x.size(0) != self.num_nodes):
            raise ValueError(
                f"the model was built for a fixed graph of num_nodes={self.num_nodes}, got "
                f"{x.size(0)} nodes; build it with node_embedding=False and without a weekly "
                "profile for other graphs"
            )
