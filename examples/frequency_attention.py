"""Denoising by frequency: what a graph and the Fourier modes of a window each take off.

Sensors stand in groups of four that see one common signal, each through white noise of its own,
with as much power as the signal. The signal is a sum of four tones with random amplitudes and
phases, 8 numbers for the 48 steps of a window. Known beforehand is the least error there can be,
of the best linear filter, in parts of the power of the signal:

* the mean over a group has a quarter of the noise, which at each instant leaves 1/5,
* a tone stands out of the noise of its own frequency by 48/8 times more, and all other frequencies
  are noise only: with the group and the window, 1/25 is left.

``TemporalFrequency`` is non-causal, it needs the whole window. That suits denoising and filling of
gaps; forecasts step by step are for Mamba or causal attention.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from pyg_stmamba.nn import STMambaBlock, TemporalFrequency

STEPS, GROUPS, GROUP_SIZE = 48, 4, 4
FREQUENCIES = torch.tensor([2, 3, 7, 11])  # in turns a window


class Denoiser(nn.Module):
    def __init__(self, channels: int, temporal: TemporalFrequency | None) -> None:
        super().__init__()
        self.lift = nn.Linear(1, channels)
        self.block = STMambaBlock(channels, temporal=temporal, dropout=0.0, norm="pre")
        self.readout = nn.Linear(channels, 1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.readout(self.block(self.lift(x), edge_index, nodes_first=True))


def fresh_windows(num_windows: int) -> tuple[Tensor, Tensor]:
    """What the sensors show and what is there, both ``[N, B, T, 1]``."""
    angle = 2 * torch.pi * FREQUENCIES.unsqueeze(-1) * torch.arange(STEPS) / STEPS
    waves = torch.cat([angle.cos(), angle.sin()])
    amplitudes = torch.randn(GROUPS, num_windows, len(waves)) / len(FREQUENCIES) ** 0.5
    signal = (amplitudes @ waves).repeat_interleave(GROUP_SIZE, dim=0).unsqueeze(-1)
    return signal + torch.randn_like(signal), signal


def remaining_error(
    build: Callable[[int], TemporalFrequency] | None, num_batches: int, channels: int = 16
) -> float:
    """Trains on fresh windows and tests on others."""
    torch.manual_seed(0)
    group = torch.arange(GROUPS * GROUP_SIZE) // GROUP_SIZE
    edge_index = (group.unsqueeze(0) == group.unsqueeze(1)).nonzero().t()
    model = Denoiser(channels, None if build is None else build(channels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_batches)
    for _ in range(num_batches):
        x, y = fresh_windows(16)
        loss = nn.functional.mse_loss(model(x, edge_index), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        x, y = fresh_windows(200)
        return (model(x, edge_index) - y).square().mean().item()


def main(num_batches: int = 200) -> dict[str, float]:
    operators: dict[str, Callable[[int], TemporalFrequency] | None] = {
        "without a temporal phase": None,
        "with attention among frequencies": TemporalFrequency,
        "with a matrix for each frequency": partial(TemporalFrequency, variant="feb"),
    }
    result = {}
    for name, temporal in operators.items():
        result[name] = remaining_error(temporal, num_batches)
        print(f"remaining error {name}: {result[name]:.3f}")
    return result


if __name__ == "__main__":
    main()
