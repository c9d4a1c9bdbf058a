from __future__ import annotations

import numpy as np

from pyg_stmamba.simulation.meshing import channel_mesh
from pyg_stmamba.simulation.navier_stokes import FlowState, NavierStokes
from pyg_stmamba.simulation.taylor_hood import TaylorHood


class CylinderInChannel:
    r"""A channel in which a cylinder stands, of mean inlet speed :math:`U` and diameter
    :math:`D`, as in `"Benchmark Computations of Laminar Flow Around a Cylinder"
    <https://doi.org/10.1007/978-3-322-89849-4_39>`_.

    The velocity is zero on walls and cylinder and a parabola at the inlet,

    .. math::
        u(y) = u_{\max} \, \frac{4 y (H - y)}{H^2}, \qquad U = \tfrac{2}{3} u_{\max}.

    Args:
        inlet_speed (float): The peak :math:`u_{\max}` of the parabola.
        radius (float): Radius of the cylinder.
        center (tuple[float, float]): Center of the cylinder.
        viscosity (float): Kinematic viscosity.
        time_step (float): Length of a time step.
        length (float): Length of the channel. (default: :obj:`2.2`)
        height (float): Height :math:`H` of the channel. (default: :obj:`0.41`)
        num_nodes (int): About how many nodes the mesh gets. (default: :obj:`1800`)
        seed (int): Seed of the mesh. (default: :obj:`0`)

    Attributes:
        mesh (Mesh): The mesh.
        solver (NavierStokes): The equations on it.
        boundary (numpy.ndarray): The velocity at fixed nodes, zero elsewhere.
        obstacle (numpy.ndarray): Whether a node of the velocity is on the cylinder.
        mean_speed (float): :math:`U`.

    Raises:
        ValueError: If a number is not positive or the cylinder is not inside the channel.
    """

    def __init__(
        self,
        inlet_speed: float,
        radius: float,
        center: tuple[float, float],
        viscosity: float,
        time_step: float,
        *,
        length: float = 2.2,
        height: float = 0.41,
        num_nodes: int = 1800,
        seed: int = 0,
    ) -> None:
        if not 0 < inlet_speed < np.inf:
            raise ValueError(f"inlet_speed must be positive, got {inlet_speed}")
        self.mesh = channel_mesh(length, height, center, radius, num_nodes=num_nodes, seed=seed)
        space = TaylorHood(self.mesh.pos, self.mesh.cells["triangle"])
        edges = space.boundary_edges
        ends = edges[:, :2]
        # The corners of the channel are nodes of its walls.
        outflow, inflow = (self.mesh.nodes_of(name)[ends].any(1) for name in ("outflow", "inflow"))
        fixed, self.obstacle = (np.zeros(space.num_nodes, dtype=bool) for _ in range(2))
        fixed[edges[~outflow]] = True
        self.obstacle[edges[self.mesh.nodes_of("obstacle")[ends].all(1)]] = True
        self.solver = NavierStokes(space, viscosity, time_step, fixed)
        inlet = np.unique(edges[inflow])
        y = space.nodes[inlet, 1]
        self.boundary = np.zeros((space.num_nodes, 2))
        self.boundary[inlet, 0] = inlet_speed * 4 * y * (height - y) / height**2
        self.mean_speed = 2 / 3 * inlet_speed
        self.center, self.diameter = center, 2 * radius

    def coefficients(self, state: FlowState) -> np.ndarray:
        r"""Returns the coefficients of drag and lift :math:`(c_D, c_L)`, the force of the flow on
        the cylinder over :math:`\tfrac{1}{2} \varrho U^2 D`."""
        return state.reaction[self.obstacle].sum(0) / (0.5 * self.mean_speed**2 * self.diameter)

    def turning(self, speed: float) -> np.ndarray:
        r"""Returns the velocity of the surface of the cylinder if it turns counter-clockwise with
        a speed, zero elsewhere."""
        x, y = (self.solver.space.nodes[self.obstacle] - self.center).T
        velocity = np.zeros_like(self.boundary)
        velocity[self.obstacle] = np.stack([-y, x], axis=1) * (2 * speed / self.diameter)
        return velocity
