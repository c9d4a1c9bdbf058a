r"""Training, rollout and evaluation of surrogates of simulations on meshes."""

from .beside_truth import beside_truth
from .boundary_values import BoundaryValues
from .evaluate_simulator import SimulatorEvaluation, evaluate_simulator
from .fit_simulator import SimulatorResult, fit_simulator
from .rollout import Rollout, roll_out
from .rollout_errors import RolloutErrors, measure_rollout
from .simulator import Simulator, check_simulator_fits, load_simulator
from .simulator_data import SimulatorData
from .simulator_module import SimulatorModule

__all__ = [
    "BoundaryValues",
    "Rollout",
    "RolloutErrors",
    "Simulator",
    "SimulatorData",
    "SimulatorEvaluation",
    "SimulatorModule",
    "SimulatorResult",
    "beside_truth",
    "check_simulator_fits",
    "evaluate_simulator",
    "fit_simulator",
    "load_simulator",
    "measure_rollout",
    "roll_out",
]
