"""Four ways to train and ask one forecaster over many series: in one shot, with a teacher, with a
teacher that leaves, and in one shot beside a linear model.

Two pendulums swing at speeds of their own, and two sensors show them only together: their product
and the square of their sum. The phases of both pendulums are known, as the hour of the day is in
traffic, but no linear map of what was seen forecasts the two sensors. The spatio-temporal Performer
makes a token of each sensor at each step and lets all of them attend to each other.

In one shot, the decoder is asked for all steps ahead at once. With a teacher it is trained to give
the next step after the true ones, and forecasts step by step from its own; scheduled sampling goes
on from there and lets it meet its own forecasts in training, more and more often. Missing values,
a tenth of all, are flagged in their tokens and left out of the loss.
"""

import math

import torch
from torch import Tensor
from tqdm import tqdm

from pyg_stmamba import LinearModel, SpatioTemporalPerformer
from pyg_stmamba.nn.losses import masked_mse

WINDOW, HORIZON, PERIODS = 16, 8, (23.0, 9.7)
WAYS = {
    "one shot": {},
    "teacher forcing": {"autoregressive_training": True},
    "then scheduled sampling": {"autoregressive_training": True, "scheduled_sampling": 10.0},
    "one shot, linear model on the trend": {
        "use_revin": True,
        "use_seasonal_decomp": True,
        "decomposition_kernel": 5,
        "linear_window": 8,
    },
}


def pendulums(steps: int) -> tuple[Tensor, Tensor]:
    """The phases [T, 2], and what four sensors show [T, 4], NaN where a value is missing."""
    time = torch.arange(float(steps))
    phase = torch.stack([2 * math.pi * time / period for period in PERIODS], -1) % (2 * math.pi)
    a, b = phase[:, 0].sin(), (phase[:, 1] + 1).sin()
    series = torch.stack([a, b, a * b, (a + b).square()], -1)
    series = series + 0.05 * torch.randn(series.shape)
    return phase, series.masked_fill(torch.rand(series.shape) < 0.1, torch.nan)


def windows(phase: Tensor, series: Tensor, starts: Tensor) -> tuple[Tensor, ...]:
    """Times and values of windows, and of the steps that follow them."""
    steps = starts[:, None] + torch.arange(WINDOW + HORIZON)
    x, y = phase[steps], series[steps]
    return x[:, :WINDOW], y[:, :WINDOW], x[:, WINDOW:], y[:, WINDOW:]


def train(model: torch.nn.Module, data: tuple[Tensor, ...], passes: int, rate: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, passes, pct_start=0.1)
    model.train()
    for _ in tqdm(range(passes), leave=False):
        batch = windows(*data, torch.randint(1000, (32,)))
        optimizer.zero_grad()
        masked_mse(model(*batch), batch[-1]).backward()
        optimizer.step()
        schedule.step()
    model.eval()


class Linear(torch.nn.Module):
    """The linear model alone, on the values with gaps filled by zero, their mean or so."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = LinearModel(WINDOW, d_yt=4)

    def forward(self, enc_x: Tensor, enc_y: Tensor, dec_x: Tensor, dec_y: Tensor) -> Tensor:
        return self.linear(enc_y.nan_to_num(), HORIZON)


def main(passes: int = 160) -> dict[str, float]:
    torch.manual_seed(0)
    data = pendulums(1500)
    models: dict[str, torch.nn.Module] = {"linear model alone": Linear()}
    for name, options in WAYS.items():
        models[name] = SpatioTemporalPerformer(
            d_y_context=4, d_y_target=4, d_x=2, d_model=32, n_heads=4, n_encoder_layers=1,
            n_decoder_layers=1, dropout_ff=0.0, local_self_attention="full",
            local_cross_attention="full", **options,
        )  # fmt: skip

    test = windows(*data, torch.arange(1100, 1470, 3))
    errors = {}
    for name, model in models.items():
        if name == "then scheduled sampling":
            # Step by step, so a pass takes as many runs of the decoder as there are steps.
            model.load_state_dict(models["teacher forcing"].state_dict())
            train(model, data, passes // 8, rate=1e-3)
        else:
            train(model, data, passes, rate=1e-2)
        with torch.no_grad():
            # Evaluation looks at no value ahead, whatever stands there.
            forecast = model(*test[:3], torch.full_like(test[3], torch.nan))
        errors[name] = masked_mse(forecast, test[3]).item()
        print(f"{name:<38} mean squared error {errors[name]:.4f}")
    return errors


if __name__ == "__main__":
    main()
