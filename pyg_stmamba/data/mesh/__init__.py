from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.node_types import NODE_TYPES, PREDICTED_TYPES
from pyg_stmamba.data.mesh.trajectory import Frames, MeshTrajectory

__all__ = ["NODE_TYPES", "PREDICTED_TYPES", "Frames", "Mesh", "MeshTrajectory"]
