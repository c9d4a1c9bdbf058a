r"""Pictures, animations and reports of flows on meshes (``pip install pyg-stmamba[train]``)."""

from pyg_stmamba.visualization.mesh.animation import animate_rollout
from pyg_stmamba.visualization.mesh.error_growth import plot_error_growth
from pyg_stmamba.visualization.mesh.forces import plot_forces
from pyg_stmamba.visualization.mesh.mesh_fields import plot_mesh_fields
from pyg_stmamba.visualization.mesh.rollout_report import write_rollout_report
from pyg_stmamba.visualization.mesh.spectrum import plot_spectra
from pyg_stmamba.visualization.mesh.training_curves import plot_training_curves

__all__ = [
    "animate_rollout",
    "plot_error_growth",
    "plot_forces",
    "plot_mesh_fields",
    "plot_spectra",
    "plot_training_curves",
    "write_rollout_report",
]
