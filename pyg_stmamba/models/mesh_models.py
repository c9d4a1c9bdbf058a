from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from pyg_stmamba.models.mesh_model import MeshModel
from pyg_stmamba.models.mesh_simulator import MeshSimulator

# The models of fields on meshes that can be trained, by the names of the command line.
MESH_MODELS: dict[str, type[MeshModel]] = {
    "mesh-simulator": MeshSimulator,
    "mesh-graph-net": MeshGraphNet,
}
