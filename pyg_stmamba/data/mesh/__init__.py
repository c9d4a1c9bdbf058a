r"""Simulations on meshes: what they hold, and what a model sees of them. Their files are read and
written by :mod:`pyg_stmamba.data.mesh_files`."""

from pyg_stmamba.data.mesh.boundary import boundary_facets, boundary_nodes
from pyg_stmamba.data.mesh.calculus import MeshCalculus
from pyg_stmamba.data.mesh.coarse_levels import coarse_levels
from pyg_stmamba.data.mesh.edges import cells_to_edges, edge_features
from pyg_stmamba.data.mesh.forces import BodyForce, force_coefficients
from pyg_stmamba.data.mesh.frame_statistics import FrameStatistics, frame_statistics
from pyg_stmamba.data.mesh.gradient_weights import gradient_weights
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.mesh_graph import mesh_graph
from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.mesh_split import MeshSplit, split_trajectories
from pyg_stmamba.data.mesh.mesh_windows import MeshWindows
from pyg_stmamba.data.mesh.node_types import NODE_TYPES, PREDICTED_TYPES
from pyg_stmamba.data.mesh.trajectory import Frames, MeshTrajectory

__all__ = [
    "NODE_TYPES",
    "PREDICTED_TYPES",
    "BodyForce",
    "FrameStatistics",
    "Frames",
    "Mesh",
    "MeshCalculus",
    "MeshProtocol",
    "MeshSplit",
    "MeshTrajectory",
    "MeshWindows",
    "boundary_facets",
    "boundary_nodes",
    "cells_to_edges",
    "coarse_levels",
    "edge_features",
    "force_coefficients",
    "frame_statistics",
    "gradient_weights",
    "mesh_graph",
    "split_trajectories",
]
