import numpy as np
import pytest
from scipy.spatial import Delaunay

from pyg_stmamba.simulation.mesh_quality import triangle_angles, triangle_areas


def test_known_triangles():
    pos = np.array([[0, 0], [2, 0], [1, np.sqrt(3)], [0, 2.0]])
    triangles = np.array([[0, 1, 2], [0, 1, 3], [3, 1, 0]])
    np.testing.assert_allclose(triangle_areas(pos, triangles), [np.sqrt(3), 2, -2])
    angles = [[60, 60, 60], [90, 45, 45], [45, 45, 90]]
    np.testing.assert_allclose(triangle_angles(pos, triangles), angles)


def test_flat_triangles():
    pos = np.array([[0, 0], [1, 0], [2, 0.0]])
    triangles = np.array([[0, 1, 2], [1, 2, 0]])
    np.testing.assert_array_equal(triangle_areas(pos, triangles), [0, 0])
    np.testing.assert_allclose(triangle_angles(pos, triangles), [[0, 180, 0], [180, 0, 0]])


def test_agrees_with_vtk():
    pyvista = pytest.importorskip("pyvista")
    pos = np.random.default_rng(0).random((60, 2))
    triangles = Delaunay(pos).simplices
    faces = np.insert(triangles, 0, 3, axis=1)
    surface = pyvista.PolyData(np.insert(pos, 2, 0, axis=1), faces)
    quality = surface.cell_quality(["area", "min_angle", "max_angle"])
    angles = triangle_angles(pos, triangles)
    np.testing.assert_allclose(triangle_areas(pos, triangles), quality["area"])
    np.testing.assert_allclose(angles.min(axis=1), quality["min_angle"], rtol=1e-6)
    np.testing.assert_allclose(angles.max(axis=1), quality["max_angle"], rtol=1e-6)
    np.testing.assert_allclose(angles.sum(axis=1), 180)
