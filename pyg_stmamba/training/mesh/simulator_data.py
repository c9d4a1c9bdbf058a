from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.utils.data import Subset
from torch_geometric.loader import DataLoader

from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.mesh_split import MeshSplit
from pyg_stmamba.data.mesh.mesh_windows import MeshWindows
from pyg_stmamba.training.forecast_data import EpochOrder
from pyg_stmamba.training.run_data import RunData


class SimulatorData(RunData):
    r"""The training and validation windows of simulations on meshes.

    Training windows have noise, other at each access, and overlap or not as :obj:`stride` says.
    Validation windows have none and are longer: the model reads the first frames and goes on by
    itself over the rest.

    Args:
        split (MeshSplit): The simulations.
        protocol (MeshProtocol): What is read and predicted.
        batch_size (int, optional): Windows a batch. (default: :obj:`2`)
        windows_per_epoch (int, optional): Windows of an epoch, drawn anew each time.
            (default: :obj:`None`, all)
        stride (int, optional): Frames from one training window to the next.
            (default: :obj:`1`)
        noise (float or dict[str, float], optional): Standard deviation of the noise on the state,
            in its units. (default: :obj:`0.0`)
        noise_kind (str, optional): :obj:`"independent"` or :obj:`"walk"`.
            (default: :obj:`"walk"`)
        val_steps (int, optional): Steps of a validation rollout, fewer where a simulation has no
            more. (default: :obj:`50`)
        val_rollouts (int, optional): Validation rollouts of each simulation.
            (default: :obj:`2`)
        seed (int, optional): Seed of order and noise. (default: :obj:`0`)
        num_workers (int, optional): Processes that prepare batches. (default: :obj:`0`)
    """

    def __init__(
        self,
        split: MeshSplit,
        protocol: MeshProtocol,
        batch_size: int = 2,
        windows_per_epoch: int | None = None,
        stride: int = 1,
        noise: float | Mapping[str, float] = 0.0,
        noise_kind: str = "walk",
        val_steps: int = 50,
        val_rollouts: int = 2,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, number in (
            ("batch_size", batch_size),
            ("windows_per_epoch", windows_per_epoch),
            ("val_steps", val_steps),
            ("val_rollouts", val_rollouts),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number} must be at least 1")
        self.split, self.protocol = split, protocol
        self.batch_size, self.windows_per_epoch = batch_size, windows_per_epoch
        self.seed, self.num_workers = seed, num_workers
        self.train_windows = protocol.windows(
            split.train, stride=stride, noise=noise, noise_kind=noise_kind, seed=seed
        )
        longest = min(trajectory.num_frames for trajectory in split.val) - protocol.history
        if longest < 1:
            raise ValueError(
                f"a simulation for validation has {longest + protocol.history} frames, fewer than "
                f"the {protocol.history} that the model reads and one that it predicts"
            )
        self.val_steps = min(val_steps, longest)
        longer = protocol._replace(history=protocol.history + self.val_steps - 1)
        self.val_windows = longer.windows(split.val)
        self.val_starts = _spread(self.val_windows, val_rollouts)

    def train_dataloader(self) -> DataLoader:
        epoch = self._finished_epochs()
        order = EpochOrder(
            len(self.train_windows), self.seed, *self._share(), limit=self.windows_per_epoch
        )
        order.set_epoch(epoch)
        self.train_windows.set_epoch(epoch)
        return self._loader(self.train_windows, order)

    def val_dataloader(self) -> DataLoader:
        rank, world_size = self._share()
        return self._loader(Subset(self.val_windows, self.val_starts[rank::world_size]))

    def _loader(
        self, windows: MeshWindows | Subset, sampler: EpochOrder | None = None
    ) -> DataLoader:
        return DataLoader(
            windows,  # type: ignore[arg-type]
            self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            # A loader without a generator of its own draws from the random state of training.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )


def _spread(windows: MeshWindows, count: int) -> list[int]:
    """Evenly spread windows of each simulation."""
    chosen: list[int] = []
    first = 0
    for start, stop in windows.ranges:
        there = stop - start - windows.history
        places = torch.linspace(0, there - 1, min(count, there)).round().long()
        chosen += (first + places).tolist()
        first += there
    return chosen
