from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
from tqdm import tqdm

from pyg_stmamba.data.in_processes import in_processes
from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz, save_trajectory_npz
from pyg_stmamba.simulation.cylinder_flow import (
    STARTS,
    random_cylinder_flow,
    simulate_cylinder_flow,
)

# Part of the folder's name; to be raised whenever the same arguments give other simulations.
VERSION = 2
# What the smallest cylinder that may be drawn needs, and some more.
FEWEST_NODES = 550
SPLITS = ("train", "val", "test")


class CylinderFlow(Sequence[MeshTrajectory]):
    r"""Laminar flows past a cylinder in a channel, of the kind of the `"Learning Mesh-Based
    Simulation with Graph Networks" <https://arxiv.org/abs/2010.03409>`_ paper, simulated here
    with :func:`~pyg_stmamba.simulation.cylinder_flow.simulate_cylinder_flow`; nothing is
    downloaded.

    Each simulation has a mesh of its own and its own inlet speed, radius and place of the
    cylinder, and viscosity, at Reynolds numbers of 50 to 180; it starts from rest or is developed,
    with even chances. Fields are :obj:`velocity` and :obj:`pressure` at the nodes; drag and lift
    are recorded.

    Simulations are made when the data set is opened for the first time, in any number of
    processes, and each is written when it is finished: a run that was killed goes on where it
    was. A simulation depends on seed, split and number alone, so that more of them can be added
    later.

    .. code-block:: python

        train = CylinderFlow(root, "train", num_simulations=20)
        trajectory = train[0]
        velocity = trajectory.frames("velocity", 0, 10)    # [N, 10, 2]

    Args:
        root (str or Path): Folder of the data set.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.
            (default: :obj:`"train"`)
        num_simulations (int, optional): How many.
            (default: :obj:`None`, 20 for training, 4 for validation and 6 for the test)
        num_nodes (int, optional): Nodes of a mesh, about. (default: :obj:`600`)
        num_frames (int, optional): Frames of a simulation. (default: :obj:`600`)
        frame_step (float, optional): Seconds from frame to frame. (default: :obj:`0.01`)
        substeps (int, optional): Steps of the solver from frame to frame. (default: :obj:`2`)
        start (str, optional): :obj:`"rest"` or :obj:`"developed"` for all, see
            :func:`~pyg_stmamba.simulation.cylinder_flow.simulate_cylinder_flow`.
            (default: :obj:`None`, drawn for each)
        seed (int, optional): Seed of everything. (default: :obj:`0`)
        processes (int, optional): How many simulations run at the same time.
            (default: :obj:`None`, one for each processor)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        transform (callable, optional): Applied to a trajectory at each access.
            (default: :obj:`None`)

    Raises:
        ValueError: If an option is out of range.
        ChildProcessError: If simulations failed; those that are finished are kept.
    """

    protocol = MeshProtocol(conditions=("viscosity",))

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        num_simulations: int | None = None,
        num_nodes: int = 600,
        num_frames: int = 600,
        frame_step: float = 0.01,
        substeps: int = 2,
        start: str | None = None,
        seed: int = 0,
        *,
        processes: int | None = None,
        progress: bool = True,
        transform: Callable[[MeshTrajectory], MeshTrajectory] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        if num_simulations is None:
            num_simulations = {"train": 20, "val": 4, "test": 6}[split]
        for name, number in (("num_simulations", num_simulations), ("num_frames", num_frames)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if num_nodes < FEWEST_NODES:
            raise ValueError(
                f"num_nodes must be at least {FEWEST_NODES}, so that each cylinder and the gaps "
                f"beside it are resolved, got {num_nodes}"
            )
        if start not in (None, *STARTS):
            raise ValueError(f"unknown start {start!r}; choose from {', '.join(STARTS)}, or None")
        self.split, self.num_simulations, self.seed = split, num_simulations, seed
        self.options: dict[str, Any] = {
            "num_nodes": num_nodes,
            "num_frames": num_frames,
            "frame_step": frame_step,
            "substeps": substeps,
            **({} if start is None else {"start": start}),
        }
        self.transform = transform
        self.folder = (
            Path(root)
            / "processed"
            / (
                f"v{VERSION}_nodes{num_nodes}_frames{num_frames}_step{frame_step:g}_substeps{substeps}"
                f"{'' if start is None else '_' + start}_seed{seed}"
            )
        )
        self._simulate_missing(processes or os.cpu_count() or 1, progress)

    def path(self, number: int) -> Path:
        r"""Where a simulation lies.

        Args:
            number (int): Which one.
        """
        return self.folder / f"{self.split}_{number:04d}.npz"

    def __len__(self) -> int:
        return self.num_simulations

    @overload
    def __getitem__(self, number: int) -> MeshTrajectory: ...
    @overload
    def __getitem__(self, number: slice) -> list[MeshTrajectory]: ...
    def __getitem__(self, number: int | slice) -> MeshTrajectory | list[MeshTrajectory]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"simulation {number} of {len(self)}")
        trajectory = load_trajectory_npz(self.path(number % len(self)))
        return trajectory if self.transform is None else self.transform(trajectory)

    def _simulate_missing(self, processes: int, progress: bool) -> None:
        missing = [i for i in range(len(self)) if not self.path(i).exists()]
        jobs = [
            (self.path(i), [self.seed, SPLITS.index(self.split), i], self.options) for i in missing
        ]
        hidden = not (progress and jobs)
        bar = tqdm(total=len(jobs), desc=f"Simulating ({self.split})", disable=hidden)
        failed = []
        with bar, _one_thread_each():
            for number, exit_code in in_processes(_simulate, jobs, processes):
                bar.update()
                if exit_code:
                    failed.append(missing[number])
        if failed:
            raise ChildProcessError(
                f"{len(failed)} of {len(missing)} simulations failed, see the messages above: "
                f"{self.split} {', '.join(map(str, failed))}; those that are finished are kept in "
                f"{self.folder}"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.split!r}, {len(self)} simulations)"


def _simulate(path: Path, seed: Sequence[int], options: dict[str, Any]) -> None:
    drawn = random_cylinder_flow(np.random.default_rng(seed))
    trajectory = simulate_cylinder_flow(**{**drawn, **options})
    trajectory.name = path.stem
    save_trajectory_npz(trajectory, path)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """New processes are told to use one thread each: there is one of them for each processor."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
