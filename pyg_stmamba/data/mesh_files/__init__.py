r"""Simulations on meshes, from and to the files of the field."""

from pyg_stmamba.data.mesh_files.deepmind_writer import write_deepmind
from pyg_stmamba.data.mesh_files.hdf5_trajectory import load_trajectory_hdf5, save_trajectory_hdf5
from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz, save_trajectory_npz
from pyg_stmamba.data.mesh_files.pvd_series import write_pvd
from pyg_stmamba.data.mesh_files.read_trajectory import read_trajectory
from pyg_stmamba.data.mesh_files.vtu_file import write_vtu
from pyg_stmamba.data.mesh_files.write_trajectory import write_trajectory
from pyg_stmamba.data.mesh_files.xdmf_file import write_xdmf

__all__ = [
    "load_trajectory_hdf5",
    "load_trajectory_npz",
    "read_trajectory",
    "save_trajectory_hdf5",
    "save_trajectory_npz",
    "write_deepmind",
    "write_pvd",
    "write_trajectory",
    "write_vtu",
    "write_xdmf",
]
