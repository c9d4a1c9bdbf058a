from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.deepmind_trajectory import DeepMindTrajectories
from pyg_stmamba.data.mesh_files.file_stamp import file_stamp
from pyg_stmamba.data.mesh_files.mapped_npz import MappedNpz, write_npz

BUCKET = "https://storage.googleapis.com/dm-meshgraphnets"
PROTOCOLS = {
    "cylinder_flow": MeshProtocol(state=("velocity",), outputs=("pressure",)),
    "airfoil": MeshProtocol(state=("velocity", "density"), outputs=("pressure",)),
}
FILES = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


class DeepMindFlow(Sequence[MeshTrajectory]):
    r"""The flows of the `"Learning Mesh-Based Simulation with Graph Networks"
    <https://arxiv.org/abs/2010.03409>`_ paper, read from its files without TensorFlow.

    :obj:`"cylinder_flow"` are laminar flows past a cylinder in a channel, with velocity and
    pressure, 600 frames 0.01 s apart; :obj:`"airfoil"` are compressible flows around a wing
    section, with velocity, pressure and density.

    The files are large and no checksums of them are published, so they are fetched by hand:

    .. code-block:: bash

        mkdir -p ROOT/raw && cd ROOT/raw
        for file in meta.json train.tfrecord valid.tfrecord test.tfrecord; do
            curl -O https://storage.googleapis.com/dm-meshgraphnets/cylinder_flow/$file
        done

    Files of the same layout that are one's own, as
    :func:`~pyg_stmamba.data.mesh_files.deepmind_writer.write_deepmind` writes them, are read as
    well. Where the trajectories begin in a file is found at the first opening and kept in
    :obj:`processed/`.

    .. code-block:: python

        trajectory = DeepMindFlow(root, "cylinder_flow", "train")[0]
        velocity = trajectory.frames("velocity", 0, 10)    # [N, 10, 2]

    Args:
        root (str or Path): Folder of the data set, with :obj:`meta.json` and the
            :obj:`.tfrecord` files in :obj:`raw/` or in itself.
        name (str, optional): :obj:`"cylinder_flow"` or :obj:`"airfoil"`.
            (default: :obj:`"cylinder_flow"`)
        split (str, optional): :obj:`"train"`, :obj:`"valid"` (or :obj:`"val"`) or
            :obj:`"test"`. (default: :obj:`"train"`)
        check (bool, optional): Tests the checksum of a trajectory when it is opened, for which
            all of it is read once. (default: :obj:`True`)
        transform (callable, optional): Applied to a trajectory at each access.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If a file is not there; the message says how to get it.
        ValueError: If an option is unknown, or a file is empty, cut off or damaged.

    **STATS:**

    .. list-table::
        :widths: 20 20 20 20
        :header-rows: 1

        * - name
          - #trajectories
          - #frames
          - #nodes
        * - cylinder_flow
          - 1,000 / 100 / 100
          - 600
          - ~1,885
        * - airfoil
          - 1,000 / 100 / 100
          - 601
          - ~5,233
    """

    def __init__(
        self,
        root: str | Path,
        name: str = "cylinder_flow",
        split: str = "train",
        *,
        check: bool = True,
        transform: Callable[[MeshTrajectory], MeshTrajectory] | None = None,
    ) -> None:
        for what, value, known in (("name", name, PROTOCOLS), ("split", split, FILES)):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; choose from {', '.join(known)}")
        self.root, self.name, self.split = Path(root), name, FILES[split]
        self.transform = transform
        self.folder = self.root if (self.root / "meta.json").is_file() else self.root / "raw"
        self.path = self.folder / f"{self.split}.tfrecord"
        for path in (self.folder / "meta.json", self.path):
            if not path.is_file():
                raise FileNotFoundError(
                    f"no file {path}; fetch {BUCKET}/{name}/{path.name} and put it there, for "
                    f"example with: curl --create-dirs -o {path} {BUCKET}/{name}/{path.name}"
                )
        self.trajectories = DeepMindTrajectories(
            self.folder, self.split, check=check, places=self._kept_places()
        )
        if len(self) == 0:
            raise ValueError(f"{self.path} is empty; fetch it again from {BUCKET}/{name}")
        self._keep_places()

    @property
    def protocol(self) -> MeshProtocol:
        r"""What the paper predicts."""
        return PROTOCOLS[self.name]

    def __len__(self) -> int:
        return len(self.trajectories)

    @overload
    def __getitem__(self, index: int) -> MeshTrajectory: ...
    @overload
    def __getitem__(self, index: slice) -> list[MeshTrajectory]: ...
    def __getitem__(self, index: int | slice) -> MeshTrajectory | list[MeshTrajectory]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        trajectory = self.trajectories[index]
        return trajectory if self.transform is None else self.transform(trajectory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} trajectories)"

    @property
    def _places_path(self) -> Path:
        return self.root / "processed" / f"{self.split}_places.npz"

    def _kept_places(self) -> np.ndarray | None:
        # A file of places that is damaged or outdated is made anew.
        with contextlib.suppress(OSError, ValueError, KeyError):
            kept = MappedNpz(self._places_path)
            if np.array_equal(kept["stamp"], file_stamp(self.path)):
                return np.asarray(kept["places"])
        return None

    def _keep_places(self) -> None:
        places = self.trajectories.records.places
        # Data sets may lie where nothing can be written; then each opening makes the pass.
        with contextlib.suppress(OSError):
            if self._kept_places() is None:
                write_npz(
                    self._places_path, {"places": places, "stamp": np.array(file_stamp(self.path))}
                )
