import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh

POS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 0.5]])
SQUARE = {"quad": np.array([[0, 1, 2, 3]]), "triangle": np.array([[1, 4, 2]])}


def test_a_mesh_of_several_cell_types():
    mesh = Mesh(POS, {**SQUARE, "line": np.array([[0, 1]])}, np.array([6, 4, 0, 6, 5]))
    assert (mesh.num_nodes, mesh.num_cells, mesh.dim) == (5, 2, 2)
    assert mesh.nodes_of("wall").tolist() == [True, False, False, True, False]
    assert mesh.nodes_of("inflow", "outflow").tolist() == [False, True, False, False, True]
    assert repr(mesh) == "Mesh(5 nodes, 1 quad, 1 triangle, 1 line)"


def test_nodes_are_of_the_first_type_unless_told():
    mesh = Mesh(POS.astype(np.float32), SQUARE, node_type_names=("fluid", "rotor"))
    assert mesh.nodes_of("fluid").all()
    assert mesh.pos.dtype == np.float64
    assert mesh.node_type.dtype == np.int64
    with pytest.raises(ValueError, match="unknown node type 'wall'; this mesh knows fluid, rotor"):
        mesh.nodes_of("wall")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": POS[:, :1]}, r"pos must be \[N, 2\] or \[N, 3\], got shape \[5, 1\]"),
        ({"pos": np.where(POS == 2, np.nan, POS)}, r"node 4 lies at \[nan, 0.5\]"),
        ({"cells": {"triangle": [[0, 1, 5]]}}, r"triangle 0 has the nodes \[0, 1, 5\].*0 to 4"),
        ({"cells": {"triangle": [[0, 1, 2], [0, -1, 2]]}}, r"triangle 1 has the nodes"),
        ({"cells": {"triangle": [[0, 1, 1]]}}, r"triangle 0 has a node twice: \[0, 1, 1\]"),
        ({"cells": {"triangle": [[0, 1, 2, 3]]}}, r"must be \[M, 3\], got \[1, 4\]"),
        ({"cells": {"triangle": [[0.0, 1.0, 2.0]]}}, "must be whole numbers, got float64"),
        ({"cells": {"hexagon": [[0]]}}, "unknown cell type 'hexagon'; choose from line, triangle"),
        ({"node_type": np.zeros(4)}, r"node_type must be \[5\], one a node, got \[4\]"),
        ({"node_type": [0, 0, 7, 0, 0]}, r"node 2 has the unknown type 7; types are 0 to 6 \(nor"),
        ({"node_type": [0, 0, 0, -1, 0]}, "node 3 has the unknown type -1"),
        ({"node_type": [0.5, 0, 0, 0, 0]}, "node 0 has the unknown type 0.5"),
    ],
)
def test_wrong_meshes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Mesh(**{"pos": POS, "cells": SQUARE, **change})
