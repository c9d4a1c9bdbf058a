from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch_geometric.data import Data

from pyg_stmamba.data.mesh.mesh_windows import MeshWindows, mesh_graph
from pyg_stmamba.data.mesh.node_types import PREDICTED_TYPES
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory


class MeshProtocol(NamedTuple):
    r"""What a surrogate reads of a simulation and what it predicts, so that models can be put
    beside each other and a trained one finds in other simulations what it knows.

    Args:
        state (tuple[str, ...]): The fields whose change is predicted and that are read again, as
            the velocity. (default: :obj:`("velocity",)`)
        outputs (tuple[str, ...]): The fields that are predicted besides, as the pressure.
            (default: :obj:`("pressure",)`)
        conditions (tuple[str, ...]): The parameters of a simulation that are read, as the
            viscosity. (default: :obj:`()`)
        static (tuple[str, ...]): The node fields without time that are read.
            (default: :obj:`()`)
        predicted_types (tuple[str, ...]): The types of the nodes where the state is predicted; at
            all others it is given from outside. (default: :obj:`("normal", "outflow")`)
        history (int): Frames that are read before the first prediction. (default: :obj:`8`)
        coarse_levels (int): Coarser levels of the mesh, which add long edges; see
            :func:`~pyg_stmamba.data.mesh.coarse_levels`. (default: :obj:`0`)
        gradients (bool): Whether the gradient of the state at each node, and how the flow carries
            it along, are read too; see :func:`~pyg_stmamba.data.derivatives.derivatives`.
            (default: :obj:`False`)
    """

    state: tuple[str, ...] = ("velocity",)
    outputs: tuple[str, ...] = ("pressure",)
    conditions: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    predicted_types: tuple[str, ...] = PREDICTED_TYPES
    history: int = 8
    coarse_levels: int = 0
    gradients: bool = False

    def graph(self, trajectory: MeshTrajectory) -> Data:
        r"""Returns what does not change in a simulation, see
        :func:`~pyg_stmamba.data.mesh.mesh_graph`.

        Args:
            trajectory (MeshTrajectory): The simulation.
        """
        return mesh_graph(
            trajectory,
            conditions=self.conditions,
            static=self.static,
            predicted_types=self.predicted_types,
            coarse_levels=self.coarse_levels,
            gradients=self.gradients,
        )

    def windows(
        self,
        trajectories: Sequence[MeshTrajectory],
        *,
        stride: int = 1,
        noise: float | Mapping[str, float] = 0.0,
        noise_kind: Any = "walk",
        seed: int = 0,
    ) -> MeshWindows:
        r"""Returns the windows of simulations, see :class:`~pyg_stmamba.data.mesh.MeshWindows`.

        Args:
            trajectories (Sequence[MeshTrajectory]): The simulations.
            stride (int, optional): Frames from one window to the next. (default: :obj:`1`)
            noise (float or dict[str, float], optional): Standard deviation of the noise on the
                state. (default: :obj:`0.0`)
            noise_kind (str, optional): :obj:`"independent"` or :obj:`"walk"`.
                (default: :obj:`"walk"`)
            seed (int, optional): Seed of the noise. (default: :obj:`0`)
        """
        return MeshWindows(
            trajectories,
            self.state,
            self.outputs,
            self.history,
            stride,
            noise=noise,
            noise_kind=noise_kind,
            seed=seed,
            conditions=self.conditions,
            static=self.static,
            predicted_types=self.predicted_types,
            coarse_levels=self.coarse_levels,
            gradients=self.gradients,
        )

    def model_arguments(self, trajectory: MeshTrajectory) -> dict[str, Any]:
        r"""Returns the arguments of a :class:`~pyg_stmamba.models.mesh_model.MeshModel` that the
        data decide.

        Args:
            trajectory (MeshTrajectory): One of the simulations.
        """
        return {
            "state": {name: trajectory.channels(name) for name in self.state},
            "outputs": {name: trajectory.channels(name) for name in self.outputs},
            "node_types": list(trajectory.mesh.node_type_names),
            "edge_channels": self.graph(trajectory).edge_attr.size(1),
            "conditions": list(self.conditions),
            "static": {name: trajectory.static[name].shape[1] for name in self.static},
            "gradient_dim": trajectory.mesh.dim if self.gradients else 0,
        }
