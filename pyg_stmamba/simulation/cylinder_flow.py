from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
from tqdm import tqdm

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.simulation.cylinder_in_channel import CylinderInChannel
from pyg_stmamba.simulation.navier_stokes import FlowState

STARTS = ("rest", "developed")


def simulate_cylinder_flow(
    *,
    inlet_speed: float = 1.5,
    radius: float = 0.05,
    center: tuple[float, float] = (0.4, 0.2),
    viscosity: float = 1e-3,
    density: float = 1.0,
    length: float = 1.6,
    height: float = 0.41,
    num_frames: int = 600,
    frame_step: float = 0.01,
    substeps: int = 2,
    start: str = "rest",
    num_nodes: int = 1800,
    inflow: Callable[[float], float] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> MeshTrajectory:
    r"""Simulates the laminar flow past a cylinder in a channel, see :class:`CylinderInChannel`.

    Frame :math:`k = 0, 1, \ldots` is at the time :math:`(k + 1) \Delta t`. At time 0 either

    * :obj:`"rest"`: the fluid is at rest and the inlet starts to blow with a jerk, or
    * :obj:`"developed"`: the flow is developed. Before that the cylinder turns for a while, to
      either side and as fast as :obj:`seed` says, which starts the vortices at once; then the
      flow runs on in stretches of :math:`10 D / U`, about three periods, until the range of the
      coefficient of lift changes by less than 5 %, or 0.05, from one to the next, in 4 to 12
      stretches.

    Nothing holds the fluid at the outlet, so that the pressure is about zero there.

    Args:
        inlet_speed (float): The peak of the parabola at the inlet; the mean :math:`U` is two
            thirds of it. (default: :obj:`1.5`)
        radius (float): Radius of the cylinder, half of :math:`D`. (default: :obj:`0.05`)
        center (tuple[float, float]): Center of the cylinder. (default: :obj:`(0.4, 0.2)`)
        viscosity (float): Kinematic viscosity. (default: :obj:`1e-3`)
        density (float): Density, by which the pressure is multiplied. (default: :obj:`1.0`)
        length (float): Length of the channel. (default: :obj:`1.6`)
        height (float): Height of the channel. (default: :obj:`0.41`)
        num_frames (int): Number of frames. (default: :obj:`600`)
        frame_step (float): Time :math:`\Delta t` from frame to frame. (default: :obj:`0.01`)
        substeps (int): Steps of the solver from frame to frame. (default: :obj:`2`)
        start (str): :obj:`"rest"` or :obj:`"developed"`. (default: :obj:`"rest"`)
        num_nodes (int): About how many nodes the mesh gets. (default: :obj:`1800`)
        inflow (callable, optional): What the speed at the inlet is multiplied by at a time.
            (default: :obj:`None`, constantly 1)
        seed (int): Seed of the mesh and of the developed start. (default: :obj:`0`)
        progress (bool): Whether to show a progress bar. (default: :obj:`False`)

    Returns:
        MeshTrajectory: The fields :obj:`velocity` and :obj:`pressure` in float32 and the series
        :obj:`drag` and :obj:`lift`, as coefficients for the speed :math:`U` and the length
        :math:`D`.

    Raises:
        ValueError: If a number is not positive, the cylinder is not inside the channel, or the
            start is unknown.
    """
    if start not in STARTS:
        raise ValueError(f"unknown start {start!r}; choose from {', '.join(STARTS)}")
    for name, value in {"num_frames": num_frames, "substeps": substeps}.items():
        if value < 1 or value != int(value):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value}")
    for name, size in {"frame_step": frame_step, "density": density}.items():
        if not 0 < size < np.inf:
            raise ValueError(f"{name} must be positive, got {size}")
    flow = CylinderInChannel(
        inlet_speed,
        radius,
        center,
        viscosity,
        frame_step / substeps,
        length=length,
        height=height,
        num_nodes=num_nodes,
        seed=seed,
    )
    states = _states(flow, start, inflow or (lambda time: 1.0), seed)
    num_vertices = flow.mesh.num_nodes
    velocity = np.empty((num_frames, num_vertices, 2), dtype=np.float32)
    pressure = np.empty((num_frames, num_vertices, 1), dtype=np.float32)
    coefficients = np.empty((num_frames, 2))
    for frame in tqdm(range(num_frames), desc="Simulating", disable=not progress):
        state = next(islice(states, substeps - 1, None))
        velocity[frame] = state.velocity[:num_vertices]
        pressure[frame, :, 0] = density * state.pressure
        coefficients[frame] = flow.coefficients(state)
    return MeshTrajectory(
        flow.mesh,
        {"velocity": velocity, "pressure": pressure},
        frame_step * np.arange(1, num_frames + 1),
        parameters={
            "inlet_speed": inlet_speed,
            "radius": radius,
            "center_x": center[0],
            "center_y": center[1],
            "viscosity": viscosity,
            "density": density,
            "length": length,
            "height": height,
            "reference_speed": flow.mean_speed,
            "reference_length": flow.diameter,
        },
        series={"drag": coefficients[:, 0], "lift": coefficients[:, 1]},
        units={"velocity": "m/s", "pressure": "Pa", "time": "s", "drag": "1", "lift": "1"},
        name="cylinder_flow",
    )


def random_cylinder_flow(rng: np.random.Generator) -> dict[str, Any]:
    r"""Draws arguments for :func:`simulate_cylinder_flow`: a cylinder, an inlet speed, and the
    viscosity at which the Reynolds number :math:`U D / \nu` is one of 50 to 180.

    Args:
        rng (numpy.random.Generator): Source of chance.
    """
    radius = rng.uniform(0.035, 0.065)
    inlet_speed = rng.uniform(0.8, 1.6)
    reynolds = rng.uniform(50, 180)
    return {
        "inlet_speed": inlet_speed,
        "radius": radius,
        "center": (rng.uniform(0.25, 0.45), rng.uniform(0.18, 0.23)),
        "viscosity": 2 / 3 * inlet_speed * 2 * radius / reynolds,
        "start": STARTS[int(rng.integers(2))],
        "seed": int(rng.integers(2**31)),
    }


def _states(
    flow: CylinderInChannel, start: str, inflow: Callable[[float], float], seed: int
) -> Iterator[FlowState]:
    """The flow after each step of the solver."""
    solver = flow.solver
    times = (number * solver.time_step for number in count(1))
    if start == "developed":
        state = _developed(flow, inflow(0.0), seed)
    else:
        velocity = solver.impulse(inflow(0.0) * flow.boundary)
        state = solver.start(velocity, inflow(next(times)) * flow.boundary)
        yield state
    for time in times:
        state = solver.step(state, inflow(time) * flow.boundary)
        yield state


def _developed(flow: CylinderInChannel, strength: float, seed: int) -> FlowState:
    """The flow once its lift repeats."""
    solver = flow.solver
    stretch = max(10, round(10 * flow.diameter / flow.mean_speed / solver.time_step))
    rng = np.random.default_rng(seed)
    spin = rng.choice([-1, 1]) * rng.uniform(0.5, 1)
    turning = strength * (flow.boundary + flow.turning(spin * flow.mean_speed))
    straight = strength * flow.boundary
    state = solver.start(solver.impulse(turning), turning)
    before = 0.0
    for number in range(12):
        lift = np.empty(stretch)
        for i in range(stretch):
            turns = number == 0 and i < stretch // 5
            state = solver.step(state, turning if turns else straight)
            lift[i] = flow.coefficients(state)[1]
        now = float(np.ptp(lift))
        if number >= 3 and abs(now - before) <= 0.05 * max(now, 1.0):
            break
        before = now
    return state
