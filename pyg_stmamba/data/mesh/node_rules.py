from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pyg_stmamba.data.mesh.boundary import boundary_facets
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.node_types import NODE_TYPES
from pyg_stmamba.data.mesh.rule_expression import holds
from pyg_stmamba.data.mesh.trajectory import Frames

# What engineers call patches.
PATCH_NAMES = {
    "inflow": ("inlet", "inflow"),
    "wall": ("wall", "cylinder", "obstacle"),
    "outflow": ("outlet", "outflow"),
}
# What solvers leave where velocity should be 0, relative to the greatest speed.
AT_REST = 1e-6


class FlowSummary(NamedTuple):
    r"""What all frames together say about each node.

    Args:
        mean: The mean of each field over the frames, :math:`(|\mathcal{V}|, C)`.
        greatest: The greatest magnitude of each field, :math:`(|\mathcal{V}|)`.
        spread: The greatest change of each field, :math:`(|\mathcal{V}|)`.
    """

    mean: dict[str, np.ndarray]
    greatest: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]


def summarize_flow(fields: Mapping[str, Frames], progress: bool = False) -> FlowSummary:
    r"""Goes over all frames once.

    Args:
        fields (dict[str, Frames]): Fields of the same frames.
        progress (bool, optional): Shows a progress bar. (default: :obj:`False`)
    """
    num_frames = next(iter(fields.values())).shape[0]
    first = {name: np.asarray(frames[0:1][0], np.float64) for name, frames in fields.items()}
    total = {name: np.zeros_like(values) for name, values in first.items()}
    greatest = {name: np.zeros(len(values)) for name, values in first.items()}
    spread = {name: np.zeros(len(values)) for name, values in first.items()}
    for frame in tqdm(range(num_frames), desc="Reading", disable=not progress):
        for name, frames in fields.items():
            values = np.asarray(frames[frame : frame + 1][0], np.float64)
            total[name] += values
            change = np.linalg.norm(values - first[name], axis=1)
            greatest[name] = np.fmax(greatest[name], np.linalg.norm(values, axis=1))
            spread[name] = np.fmax(spread[name], change)
    return FlowSummary({n: v / num_frames for n, v in total.items()}, greatest, spread)


def rule_variables(
    mesh: Mesh,
    patches: Mapping[str, np.ndarray],
    summary: FlowSummary | None = None,
    velocity: str | None = None,
) -> dict[str, np.ndarray]:
    r"""Returns what rules can name: :obj:`x`, :obj:`y`, :obj:`z`, :obj:`boundary`, patches,
    :obj:`speed` (the greatest over all frames), and fields by their mean over all frames,
    vectors as :obj:`velocity_x` and so on.

    Args:
        mesh (Mesh): The mesh.
        patches (dict[str, numpy.ndarray]): Sets of nodes by name.
        summary (FlowSummary, optional): What the frames say. (default: :obj:`None`)
        velocity (str, optional): Which field :obj:`speed` is of. (default: :obj:`None`)
    """
    on_border = np.zeros(mesh.num_nodes, dtype=bool)
    on_border[boundary_facets(mesh).nodes] = True
    variables = {axis: mesh.pos[:, place] for place, axis in enumerate("xyz"[: mesh.dim])}
    variables["boundary"] = on_border
    for name, nodes in patches.items():
        variables[name] = np.isin(np.arange(mesh.num_nodes), nodes)
    for name, values in (summary.mean if summary else {}).items():
        if values.shape[1] == 1:
            variables[name] = values[:, 0]
            continue
        letters = "xyz" if values.shape[1] <= 3 else map(str, range(values.shape[1]))
        for letter, column in zip(letters, values.T):
            variables[f"{name}_{letter}"] = column
    if summary and velocity is not None:
        variables["speed"] = summary.greatest[velocity]
    return variables


def node_types_by_rules(
    rules: Mapping[str, str],
    variables: Mapping[str, np.ndarray],
    names: Sequence[str] = NODE_TYPES,
) -> np.ndarray:
    r"""Finds what each node is by rules in words. The first rule that holds decides; nodes for
    which none does are of the first type.

    .. code-block:: python

        node_types_by_rules({"inflow": "boundary & (x < 1e-6)", "wall": "boundary"}, variables)

    Args:
        rules (dict[str, str]): The rule for each type, as :func:`holds` reads it.
        variables (dict[str, numpy.ndarray]): What rules can name, :math:`(|\mathcal{V}|)` each.
        names (Sequence[str], optional): The types. (default: :obj:`NODE_TYPES`)

    Returns:
        numpy.ndarray: int64 :math:`(|\mathcal{V}|)`.

    Raises:
        ValueError: If a type is unknown, or a rule is wrong.
    """
    unknown = [name for name in rules if name not in names]
    if unknown:
        raise ValueError(f"unknown node type {unknown[0]!r}; choose from {', '.join(names)}")
    types = np.zeros(len(next(iter(variables.values()))), dtype=np.int64)
    for name, rule in reversed(list(rules.items())):
        types[holds(rule, variables)] = list(names).index(name)
    return types


def automatic_node_types(
    mesh: Mesh, summary: FlowSummary, velocity: str, patches: Mapping[str, np.ndarray]
) -> np.ndarray:
    r"""Finds what each node is from the flow.

    Nodes inside are normal. On the border nodes without motion in all frames are wall, as are
    those with a velocity along the border that never changes: a moving wall. Where the flow
    comes in on average, against the outward normal, is inflow. A velocity along the border that
    changes is a plane of symmetry, and normal. The rest is outflow. Patches that are called after
    one of these types, as :obj:`"inlet"` or :obj:`"upperWall"`, come before all this.

    Args:
        mesh (Mesh): The mesh.
        summary (FlowSummary): What the frames say.
        velocity (str): Which field is the velocity.
        patches (dict[str, numpy.ndarray]): Sets of nodes by name.

    Returns:
        numpy.ndarray: int64 :math:`(|\mathcal{V}|)`, places in :obj:`NODE_TYPES`.
    """
    facets = boundary_facets(mesh)
    outward = np.zeros_like(mesh.pos)
    for corner in facets.nodes.T:
        np.add.at(outward, corner, facets.normal * facets.measure[:, None])
    length = np.linalg.norm(outward, axis=1)
    speed, still = summary.greatest[velocity], summary.spread[velocity]
    limit = AT_REST * speed.max()
    through = (summary.mean[velocity][:, : mesh.dim] * outward).sum(1) / np.fmax(length, 1e-300)
    along = np.abs(through) <= limit
    border = np.zeros(mesh.num_nodes, dtype=bool)
    border[facets.nodes] = True

    types = np.zeros(mesh.num_nodes, dtype=np.int64)
    types[border] = NODE_TYPES.index("outflow")
    types[border & (through < 0)] = NODE_TYPES.index("inflow")
    types[border & along] = NODE_TYPES.index("normal")
    types[border & along & (still <= limit)] = NODE_TYPES.index("wall")
    types[border & (speed <= limit)] = NODE_TYPES.index("wall")
    # Where patches meet, inflow comes before wall, and wall before outflow.
    for kind, beginnings in reversed(list(PATCH_NAMES.items())):
        for name, nodes in patches.items():
            if any(word in name.lower() for word in beginnings):
                types[nodes] = NODE_TYPES.index(kind)
    return types
