from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch_geometric.data import Data

from pyg_stmamba.data.mesh.coarse_levels import coarse_levels
from pyg_stmamba.data.mesh.edges import cells_to_edges, edge_features
from pyg_stmamba.data.mesh.gradient_weights import gradient_weights
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.node_types import PREDICTED_TYPES
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory


def mesh_graph(
    trajectory: MeshTrajectory,
    *,
    conditions: Sequence[str] = (),
    static: Sequence[str] | None = None,
    predicted_types: Sequence[str] = PREDICTED_TYPES,
    coarse_levels: int = 0,
    gradients: bool = False,
) -> Data:
    r"""What a model sees of a simulation that does not change with time.

    Args:
        trajectory (MeshTrajectory): The simulation.
        conditions (sequence, optional): Names of parameters of the trajectory.
            (default: :obj:`()`)
        static (sequence, optional): Names of static fields. (default: :obj:`None`, all)
        predicted_types (sequence, optional): The types of nodes at which the flow is computed.
            (default: :obj:`PREDICTED_TYPES`)
        coarse_levels (int, optional): How many coarser levels add long-range edges.
            (default: :obj:`0`)
        gradients (bool, optional): Whether the graph holds what takes gradients of fields, see
            :func:`~pyg_stmamba.data.mesh.gradient_weights`. (default: :obj:`False`)

    Returns:
        torch_geometric.data.Data: :obj:`edge_index` :math:`(2, |\mathcal{E}|)`,
        :obj:`edge_attr` :math:`(|\mathcal{E}|, D + 1)`, with coarse levels
        :math:`(|\mathcal{E}|, D + 2 + \text{levels})`, :obj:`node_type` and :obj:`predicted`
        :math:`(|\mathcal{V}|)`, :obj:`conditions` :math:`(1, P)`, :obj:`static`
        :math:`(|\mathcal{V}|, F)` if there is any, :obj:`gradient_index` :math:`(2, M)` and
        :obj:`gradient_weight` :math:`(M, D)` if asked for, and :obj:`trajectory` :math:`(1)`, 0.

    Raises:
        ValueError: If a parameter, static field or node type is not there, no node is of a
            predicted type, a number is not finite, or the mesh has no gradients.
    """
    graph = mesh_part(trajectory.mesh, tuple(predicted_types), coarse_levels, gradients)
    return with_numbers(graph, trajectory, conditions, static)


def mesh_part(mesh: Mesh, predicted_types: Sequence[str], num_levels: int, gradients: bool) -> Data:
    r"""Returns what :func:`mesh_graph` takes from the mesh alone, the costly part.

    Args:
        mesh (Mesh): The mesh.
        predicted_types (sequence): See :func:`mesh_graph`.
        num_levels (int): How many coarser levels add long-range edges.
        gradients (bool): Whether gradients of fields can be taken.
    """
    predicted = mesh.nodes_of(*predicted_types)
    if not predicted.any():
        present = [mesh.node_type_names[i] for i in np.unique(mesh.node_type)]
        raise ValueError(
            f"no node is of a predicted type ({', '.join(predicted_types)}); the mesh has nodes "
            f"of type {', '.join(present)}"
        )
    edge_index, edge_attr = _edges_of_levels(mesh, num_levels)
    graph = Data(
        edge_index=edge_index,
        edge_attr=edge_attr,
        node_type=torch.from_numpy(mesh.node_type.copy()),
        predicted=torch.from_numpy(predicted),
    )
    if gradients:
        graph.gradient_index, graph.gradient_weight = gradient_weights(mesh)
    return graph


def with_numbers(
    graph: Data,
    trajectory: MeshTrajectory,
    conditions: Sequence[str],
    static: Sequence[str] | None,
) -> Data:
    r"""Returns the graph of a mesh with what :func:`mesh_graph` takes from the simulation.

    Args:
        graph (torch_geometric.data.Data): What :func:`mesh_part` returned; its tensors are shared.
        trajectory (MeshTrajectory): The simulation.
        conditions (sequence): See :func:`mesh_graph`.
        static (sequence, optional): See :func:`mesh_graph`.
    """
    graph = Data(**graph.to_dict())
    numbers = [_named(trajectory, "parameter", name) for name in conditions]
    graph.conditions = torch.tensor([numbers], dtype=torch.float32)
    names = tuple(trajectory.static) if static is None else static
    if names:
        fields = [_named(trajectory, "static field", name) for name in names]
        graph.static = torch.from_numpy(np.concatenate(fields, axis=1).astype(np.float32))
    graph.trajectory = torch.tensor([0])
    return graph


def static_channels(trajectory: MeshTrajectory, names: Sequence[str]) -> dict[str, int]:
    r"""Returns how many channels static fields have.

    Args:
        trajectory (MeshTrajectory): The simulation.
        names (sequence): Names of its static fields.
    """
    return {name: _named(trajectory, "static field", name).shape[1] for name in names}


def _edges_of_levels(mesh: Mesh, num_levels: int) -> tuple[Tensor, Tensor]:
    if num_levels < 0:
        raise ValueError(f"coarse_levels must not be negative, got {num_levels}")
    edges = [cells_to_edges(mesh.cells)]
    edges += [level.edge_index for level in coarse_levels(mesh, num_levels)]
    edge_index = torch.cat(edges, dim=1)
    edge_attr = edge_features(mesh.pos, edge_index)
    if num_levels == 0:
        return edge_index, edge_attr
    level = torch.repeat_interleave(torch.tensor([part.size(1) for part in edges]))
    return edge_index, torch.cat([edge_attr, one_hot(level, num_levels + 1).float()], dim=1)


def _named(trajectory: MeshTrajectory, what: str, name: str) -> Any:
    known: Mapping[str, Any] = (
        trajectory.static if what == "static field" else trajectory.parameters
    )
    called = f"the trajectory {trajectory.name!r}" if trajectory.name else "the trajectory"
    if name not in known:
        raise ValueError(f"{called} has no {what} {name!r}; it has {', '.join(known) or 'none'}")
    if not np.isfinite(known[name]).all():
        raise ValueError(f"the {what} {name!r} of {called} is NaN or infinite")
    return known[name]
