from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from pyg_stmamba.simulation.taylor_hood import TaylorHood

# Options of a factorization that keep it sparse where the pattern is symmetric.
SYMMETRIC: dict[str, Any] = {
    "permc_spec": "MMD_AT_PLUS_A",
    "diag_pivot_thresh": 0.1,
    "options": {"SymmetricMode": True},
}


class FlowState(NamedTuple):
    r"""A flow at an instant, with what the next step needs of the past.

    Args:
        velocity: Velocity at the nodes :math:`(n, 2)`.
        pressure: Pressure over density at the vertices :math:`(N)`.
        reaction: Force over density of the flow on every node of given velocity :math:`(n, 2)`,
            pressure and friction together; summed over the nodes of a body, the force on it.
        previous_velocity: The velocity one step earlier :math:`(n, 2)`.
    """

    velocity: np.ndarray
    pressure: np.ndarray
    reaction: np.ndarray
    previous_velocity: np.ndarray


class NavierStokes:
    r"""The incompressible Navier-Stokes equations in two dimensions, in equal time steps.

    .. math::
        \partial_t \mathbf{u} + (\mathbf{u} \cdot \nabla) \mathbf{u} - \nu \nabla^2 \mathbf{u}
        + \nabla p = 0, \qquad \nabla \cdot \mathbf{u} = 0

    A step takes second-order backward differences and corrects the pressure as in `"On the error
    estimates for the rotational pressure-correction projection methods"
    <https://doi.org/10.1090/S0025-5718-03-01621-1>`_:

    .. math::
        \frac{3\tilde{\mathbf{u}} - 4\mathbf{u}^n + \mathbf{u}^{n-1}}{2 \Delta t}
        + (\mathbf{w} \cdot \nabla) \tilde{\mathbf{u}} - \nu \nabla^2 \tilde{\mathbf{u}}
        + \nabla q &= 0, \qquad
        \nabla^2 \psi = \frac{3}{2 \Delta t} \nabla \cdot \tilde{\mathbf{u}}, \\
        \mathbf{u}^{n+1} = \tilde{\mathbf{u}} - \frac{2 \Delta t}{3} \nabla \psi &, \qquad
        p^{n+1} = q + \psi - \nu \nabla \cdot \tilde{\mathbf{u}}

    with :math:`\mathbf{w} = 2\mathbf{u}^n - \mathbf{u}^{n-1}` and :math:`q = p^n` in its first
    sweep. Every further sweep does it again with :math:`\mathbf{w}` and :math:`q` the velocity
    and the pressure that the one before has found. In the wake of a cylinder the second takes nine
    tenths off the error in time of the lift, where a step of half the length, which costs as
    much, takes three quarters.

    Where the velocity is not given, at the outflow, nothing pushes:
    :math:`\nu \partial_n \mathbf{u} = p \mathbf{n}`. This sets the level of the pressure; if the
    velocity is given all around, the pressure is known up to a constant only.

    Args:
        space (TaylorHood): Where velocity and pressure live.
        viscosity (float): Kinematic viscosity :math:`\nu`.
        time_step (float): Length :math:`\Delta t` of a step.
        fixed (numpy.ndarray): Whether the velocity of a node is given.
        sweeps (int): Sweeps of a step. (default: :obj:`2`)
        tolerance (float): Residual of the momentum equation at which it counts as solved, as a
            part of its right side. (default: :obj:`1e-7`)

    Shapes:
        - **fixed:** :math:`(n)`, bool

    Raises:
        ValueError: If viscosity, time step, sweeps or tolerance are not positive, or shapes do
            not fit.
    """

    def __init__(
        self,
        space: TaylorHood,
        viscosity: float,
        time_step: float,
        fixed: np.ndarray,
        *,
        sweeps: int = 2,
        tolerance: float = 1e-7,
    ) -> None:
        numbers = {"viscosity": viscosity, "time_step": time_step, "tolerance": tolerance}
        for name, value in numbers.items():
            if not 0 < value < np.inf:
                raise ValueError(f"{name} must be positive, got {value}")
        if sweeps < 1 or sweeps != int(sweeps):
            raise ValueError(f"sweeps must be a whole number of at least 1, got {sweeps}")
        fixed = np.asarray(fixed)
        if fixed.dtype != np.bool_ or fixed.shape != (space.num_nodes,):
            raise ValueError(
                f"fixed must be [{space.num_nodes}] booleans, one a node of the velocity, got "
                f"{list(fixed.shape)} of {fixed.dtype}"
            )
        self.space, self.viscosity, self.time_step = space, float(viscosity), float(time_step)
        self.fixed, self.sweeps, self.tolerance = fixed, int(sweeps), float(tolerance)
        edges = space.boundary_edges
        outflow = edges[~fixed[edges[:, 2]], :2]
        self.closed = not len(outflow)
        # Of a pressure that is free up to a constant, one value is held.
        self._grounded = np.zeros(space.num_vertices, dtype=bool)
        self._grounded[0 if self.closed else outflow] = True
        self._linear = 1.5 / time_step * space.mass + viscosity * space.stiffness
        self._momentum: SuperLU | None = None
        self._mass = splu(_with_unit_rows(space.mass, fixed), **SYMMETRIC)
        self._poisson = splu(_with_unit_rows(space.pressure_stiffness, self._grounded), **SYMMETRIC)
        self._pressure_mass = splu(space.pressure_mass.tocsc(), **SYMMETRIC)

    def impulse(self, boundary: np.ndarray) -> np.ndarray:
        r"""Returns the velocity right after fluid at rest was set in motion with a jerk: of all
        fields without divergence that have the given values the one of least energy.

        Args:
            boundary (numpy.ndarray): The velocity at fixed nodes; the other values do not count.

        Shapes:
            - **boundary:** :math:`(n, 2)`
            - **output:** :math:`(n, 2)`
        """
        boundary = self._checked(boundary, "boundary")
        return self._solved_together(self.space.mass, np.zeros_like(boundary), boundary)[0]

    def start(self, velocity: np.ndarray, boundary: np.ndarray) -> FlowState:
        r"""Makes the first step, an implicit Euler step of velocity and pressure together.

        Args:
            velocity (numpy.ndarray): The velocity to start from.
            boundary (numpy.ndarray): The velocity at the end of the step, of which the values at
                fixed nodes count.

        Shapes:
            - **velocity:** :math:`(n, 2)`
            - **boundary:** :math:`(n, 2)`
        """
        space, boundary = self.space, self._checked(boundary, "boundary")
        velocity = self._checked(velocity, "velocity")
        matrix = space.convection(velocity) + self.viscosity * space.stiffness
        matrix = matrix + space.mass / self.time_step
        right = space.mass @ velocity / self.time_step
        moved, pressure = self._solved_together(matrix, right, boundary)
        reaction = right + self._push(pressure) - matrix @ moved
        return FlowState(moved, pressure, reaction, velocity)

    def step(self, state: FlowState, boundary: np.ndarray) -> FlowState:
        r"""Makes a step.

        Args:
            state (FlowState): The flow before the step.
            boundary (numpy.ndarray): The velocity at the end of the step, of which the values at
                fixed nodes count.

        Shapes:
            - **boundary:** :math:`(n, 2)`

        Raises:
            ValueError: If the boundary is not finite or its shape does not fit.
            FloatingPointError: If the flow grew without bounds.
        """
        space, boundary = self.space, self._checked(boundary, "boundary")
        convecting = 2 * state.velocity - state.previous_velocity
        past = 4 * state.velocity - state.previous_velocity
        past = space.mass @ past / (2 * self.time_step)
        velocity = np.where(self.fixed[:, None], boundary, convecting)
        pressure = state.pressure
        for _ in range(self.sweeps):
            matrix = space.convection(convecting)
            matrix.data += self._linear.data
            right = past + self._push(pressure)
            velocity = self._solved_momentum(matrix, right, velocity)
            velocity, pressure = self._corrected(velocity, pressure)
            convecting = velocity
        reaction = past + self._push(pressure) - matrix @ velocity
        return FlowState(velocity, pressure, reaction, state.velocity)

    def steady(
        self, boundary: np.ndarray, *, tolerance: float = 1e-8, max_iterations: int = 60
    ) -> FlowState:
        r"""Finds the steady flow: solves with the convecting velocity of the solution before,
        from rest, until it stays.

        Args:
            boundary (numpy.ndarray): The velocity at fixed nodes; the other values do not count.
            tolerance (float): Change of the velocity at which to stop, as a part of the fastest.
                (default: :obj:`1e-8`)
            max_iterations (int): After how many solutions to give up. (default: :obj:`60`)

        Shapes:
            - **boundary:** :math:`(n, 2)`

        Raises:
            RuntimeError: If it does not converge, as at large Reynolds numbers.
        """
        space, boundary = self.space, self._checked(boundary, "boundary")
        velocity, right = np.zeros_like(boundary), np.zeros_like(boundary)
        for _ in range(max_iterations):
            matrix = space.convection(velocity) + self.viscosity * space.stiffness
            before = velocity
            velocity, pressure = self._solved_together(matrix, right, boundary)
            if np.abs(velocity - before).max() <= tolerance * np.abs(velocity).max():
                reaction = self._push(pressure) - matrix @ velocity
                return FlowState(velocity, pressure, reaction, velocity)
        raise RuntimeError(
            f"no steady flow after {max_iterations} iterations; at large Reynolds numbers there "
            f"is none that is stable, make time steps instead"
        )

    def _checked(self, values: np.ndarray, name: str) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (self.space.num_nodes, 2) or not np.isfinite(values).all():
            raise ValueError(
                f"{name} must be [{self.space.num_nodes}, 2] finite numbers, a velocity of each "
                f"node, got {list(values.shape)}"
            )
        return values

    def _push(self, pressure: np.ndarray) -> np.ndarray:
        """What a pressure does to the nodes of the velocity."""
        return (self.space.divergence.T @ pressure).reshape(-1, 2)

    def _corrected(
        self, velocity: np.ndarray, pressure: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes the divergence out of a velocity, and lets the pressure know."""
        weight = 1.5 / self.time_step
        divergence = self.space.divergence @ velocity.ravel()
        source = -weight * divergence
        source[self._grounded] = 0
        potential = self._poisson.solve(source)
        push = np.where(self.fixed[:, None], 0, self._push(potential))
        rotational = self.viscosity * self._pressure_mass.solve(divergence)
        return velocity + self._mass.solve(push) / weight, pressure + potential - rotational

    def _solved_momentum(
        self, matrix: sparse.csr_array, right: np.ndarray, guess: np.ndarray
    ) -> np.ndarray:
        """Refines a guess with a factorized matrix of an earlier step, as long as that helps."""
        limit = self.tolerance * np.linalg.norm(right)
        residual = np.where(self.fixed[:, None], 0, right - matrix @ guess)
        for fresh in (False, True):
            if fresh or self._momentum is None:
                self._momentum = splu(_with_unit_rows(matrix, self.fixed), **SYMMETRIC)
            for _ in range(6):
                change = self._momentum.solve(residual)
                guess = guess + change
                residual = np.where(self.fixed[:, None], 0, residual - matrix @ change)
                if np.linalg.norm(residual) <= limit:
                    return guess
        raise FloatingPointError(
            f"the momentum equation cannot be solved, the flow grew without bounds: its largest "
            f"speed is {np.abs(guess).max():g}; take a smaller step than {self.time_step:g}"
        )

    def _solved_together(
        self, matrix: sparse.csr_array, right: np.ndarray, boundary: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Velocity and pressure of ``matrix velocity - push(pressure) = right`` without
        divergence."""
        divergence = self.space.divergence
        momentum = sparse.kron(matrix, sparse.eye_array(2))
        system = sparse.block_array([[momentum, -divergence.T], [-divergence, None]], format="csr")
        given = np.zeros(system.shape[0], dtype=bool)
        given[: boundary.size] = np.repeat(self.fixed, 2)
        if self.closed:
            given[boundary.size] = True
        values = np.zeros(len(given))
        values[: boundary.size][np.repeat(self.fixed, 2)] = boundary[self.fixed].ravel()
        source = np.concatenate([right.ravel(), np.zeros(self.space.num_vertices)])
        source = (source - system @ values)[~given]
        values[~given] = splu(system[~given][:, ~given].tocsc()).solve(source)
        return values[: boundary.size].reshape(-1, 2), values[boundary.size :]


def _with_unit_rows(matrix: sparse.csr_array, rows: np.ndarray) -> sparse.csc_array:
    """A copy in which the rows where a mask is true are those of the unit matrix."""
    kept = sparse.diags_array((~rows).astype(float))
    return (kept @ matrix + sparse.diags_array(rows.astype(float))).tocsc()
