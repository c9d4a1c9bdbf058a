from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric.data import Data
from tqdm import tqdm

from pyg_stmamba.data import Scaler, Windows, collate_shared
from pyg_stmamba.models.fitted_to_data import FittedToData
from pyg_stmamba.models.weekly_profile import WeeklyProfile


class LastValue(nn.Module):
    r"""Forecasts that every step ahead equals the last step of the window.

    .. math::
        \hat{y}_{i,t+h} = x_{i,t}

    Args:
        horizon (int, optional): Number of steps ahead. (default: :obj:`12`)
        target_channels (tuple[int, ...], optional): The channels to forecast.
            (default: :obj:`(0, )`)
        observed_only (bool, optional): Whether a missing last step is replaced by the last
            observed one. The published rows take it literally: a missing value that the data
            write as zero is forecast as zero. (default: :obj:`False`)

    Shapes:
        - **input:** a window :class:`~torch_geometric.data.Data` with :obj:`x`
          :math:`(N, \ldots, T, C)`
        - **output:** :math:`(N, \ldots, H, C_y)`, in original units
    """

    def __init__(
        self,
        horizon: int = 12,
        target_channels: tuple[int, ...] = (0,),
        observed_only: bool = False,
    ) -> None:
        super().__init__()
        self.horizon, self.target_channels = horizon, target_channels
        self.observed_only = observed_only

    def forward(self, data: Data) -> Tensor:
        x = data.x[..., list(self.target_channels)]
        last = x[..., -1:, :]
        if self.observed_only:
            observed = data.x_mask[..., list(self.target_channels)]
            steps = torch.arange(x.size(-2), device=x.device).unsqueeze(-1)
            last_step = (steps * observed).amax(dim=-2, keepdim=True)
            last = x.gather(-2, last_step)
        return last.expand(*last.shape[:-2], self.horizon, last.size(-1))

    def fit(self, windows: Windows) -> LastValue:
        r"""There is nothing to fit."""
        return self


class HistoricalAverage(nn.Module):
    r"""Forecasts the mean of what the node showed in the training data at the same time of the
    same day of the week, see :class:`~pyg_stmamba.models.weekly_profile.WeeklyProfile`.

    Args:
        horizon (int, optional): Number of steps ahead. (default: :obj:`12`)
        target_channels (tuple[int, ...], optional): The channels to forecast.
            (default: :obj:`(0, )`)

    Shapes:
        - **input:** a window :class:`~torch_geometric.data.Data` with :obj:`y_time_of_day` and
          :obj:`y_day_of_week` :math:`(B, H)`; without timestamps the forecast is the node's mean
        - **output:** :math:`(N, \ldots, H, C_y)`, in original units
    """

    def __init__(self, horizon: int = 12, target_channels: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.horizon = horizon
        self.profile = WeeklyProfile(target_channels)

    def fit(self, windows: Windows) -> HistoricalAverage:
        r"""Averages the steps that the training windows cover, each step once."""
        self.profile.fit(windows)
        return self

    def forward(self, data: Data) -> Tensor:
        if "y_time_of_day" in data:
            forecast = self.profile(data.y_time_of_day, data.y_day_of_week)
        else:
            windows = data.x[0, ..., 0, 0].numel()
            forecast = self.profile.mean[:, :1].unsqueeze(1).expand(-1, windows, self.horizon, -1)
        return forecast if data.x.dim() == 4 else forecast.squeeze(1)


class LinearAutoregression(FittedToData):
    r"""Forecasts each step ahead by a linear function of the window: its standardized values, the
    flags of what is missing, and a constant; fitted by ridge regression in closed form.

    .. math::
        \hat{\mathbf{w}}_h = \arg\min_{\mathbf{w}} \sum_t m_{t+h} \left( y_{t+h} -
        \mathbf{w}^{\top} \boldsymbol{\phi}_t \right)^2 + \lambda \Vert \mathbf{w} \Vert^2

    Args:
        window (int, optional): Number of steps in. (default: :obj:`12`)
        horizon (int, optional): Number of steps ahead. (default: :obj:`12`)
        target_channels (tuple[int, ...], optional): The channels to forecast.
            (default: :obj:`(0, )`)
        shared (bool, optional): Whether all nodes share the weights; else each has its own.
            (default: :obj:`False`)
        ridge (float, optional): The penalty :math:`\lambda`. (default: :obj:`1.0`)

    Shapes:
        - **input:** a window :class:`~torch_geometric.data.Data` with :obj:`x` and :obj:`x_mask`
          :math:`(N, \ldots, T, C)`
        - **output:** :math:`(N, \ldots, H, C_y)`, in original units
    """

    weight: Tensor

    def __init__(
        self,
        window: int = 12,
        horizon: int = 12,
        target_channels: tuple[int, ...] = (0,),
        shared: bool = False,
        ridge: float = 1.0,
    ) -> None:
        super().__init__()
        self.window, self.horizon, self.target_channels = window, horizon, target_channels
        self.shared, self.ridge = shared, ridge
        self.scaler = Scaler(1)
        self.register_buffer("weight", torch.empty(0, 0, 0))

    def fit(self, windows: Windows, progress: bool = False) -> LinearAutoregression:
        r"""Accumulates the normal equations over the training windows and solves them."""
        graph = windows.graph
        stop = int(windows.starts.max()) + windows.window
        train = slice(int(windows.starts.min()), stop)
        self.scaler = Scaler(graph.x.size(-1)).fit(graph.values[:, train], graph.mask[:, train])
        num_features = 2 * self.window * graph.x.size(-1) + 1
        num_outputs = self.horizon * len(self.target_channels)
        num_nodes = 1 if self.shared else graph.num_nodes
        gram = torch.zeros(num_nodes, num_outputs, num_features, num_features, dtype=torch.double)
        moment = torch.zeros(num_nodes, num_outputs, num_features, dtype=torch.double)
        # About 64 MiB of features at once, whatever the size of the graph.
        batch_size = max(1, 2**23 // (graph.num_nodes * num_features))
        loader = DataLoader(windows, batch_size, collate_fn=collate_shared)
        for data in tqdm(loader, desc="Linear autoregression", disable=not progress, leave=False):
            features = self._features(data).double()
            channels = list(self.target_channels)
            mean, std = self.scaler.mean[channels], self.scaler.std[channels]
            target = ((data.y - mean) / std).masked_fill(~data.y_mask, 0.0).double()
            target, observed = target.flatten(-2), data.y_mask.flatten(-2)
            if self.shared:
                features, target, observed = (
                    value.flatten(0, 1).unsqueeze(0) for value in (features, target, observed)
                )
            moment += target.mT @ features
            for output in range(num_outputs):
                weighted = features * observed[..., output : output + 1]
                gram[:, output] += weighted.mT @ features
        gram += self.ridge * torch.eye(num_features, dtype=torch.double)
        self.weight = torch.linalg.solve(gram, moment).float().contiguous()
        return self

    def forward(self, data: Data) -> Tensor:
        features = self._features(data)
        shape = (self.horizon, len(self.target_channels))
        if self.shared:
            y = features @ self.weight[0].mT
        else:
            flat = features.reshape(features.size(0), -1, features.size(-1))
            y = (flat @ self.weight.mT).reshape(*features.shape[:-1], -1)
        return self.scaler.inverse(y.unflatten(-1, shape), self.target_channels)

    def _features(self, data: Data) -> Tensor:
        values = self.scaler(data.x).masked_fill(~data.x_mask, 0.0).flatten(-2)
        missing = (~data.x_mask).to(values.dtype).flatten(-2)
        return torch.cat([values, missing, values.new_ones(*values.shape[:-1], 1)], dim=-1)
