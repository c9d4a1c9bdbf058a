from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.mapped_npz import MappedNpz, write_npz
from pyg_stmamba.data.mesh_files.trajectory_arrays import trajectory_arrays, trajectory_from_arrays


def save_trajectory_npz(trajectory: MeshTrajectory, path: str | os.PathLike[str]) -> None:
    r"""Writes a trajectory so that :func:`load_trajectory_npz` reads it back, all of it.

    Fields are read and written a few frames at a time. The file is not compressed, so that it can
    be mapped into memory, and gets its name only when it is whole. The same trajectory gives the
    same bytes.

    Args:
        trajectory (MeshTrajectory): The trajectory.
        path (str): The file.

    Raises:
        ValueError: If a name of a field, a parameter and so on is empty or has a slash in it.
    """
    write_npz(path, trajectory_arrays(trajectory))


def load_trajectory_npz(
    path: str | os.PathLike[str],
    *,
    fields: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    time_step: float | None = None,
) -> MeshTrajectory:
    r"""Reads a trajectory that :func:`save_trajectory_npz` wrote, or one's own :obj:`.npz` file.

    Frames are read when they are asked for, unless the file is compressed. One's own file needs
    :obj:`pos` :math:`[N, D]`, :obj:`cells` :math:`[M, 3]`, :obj:`node_type` :math:`[N]`,
    :obj:`times` :math:`[T]` or :obj:`dt`, and fields as :obj:`velocity` :math:`[T, N, 2]` and
    :obj:`pressure` :math:`[T, N, 1]`; all that it can have is in the table of
    :func:`~pyg_stmamba.data.mesh_files.trajectory_arrays.trajectory_from_arrays`.

    .. code-block:: python

        trajectory = load_trajectory_npz("run.npz", keys={"velocity": "U"}, time_step=0.01)

    Args:
        path (str): The file.
        fields (list[str], optional): The fields to take; other unknown names are then left alone.
            (default: :obj:`None`, all)
        keys (dict[str, str], optional): Under which name the file has what is called otherwise
            above. (default: :obj:`None`)
        time_step (float, optional): Time from frame to frame where the file does not say.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, something is missing, unknown, moves with time or does
            not fit; the message lists what is there.
    """
    return trajectory_from_arrays(
        MappedNpz(path), str(path), fields=fields, keys=keys, time_step=time_step
    )
