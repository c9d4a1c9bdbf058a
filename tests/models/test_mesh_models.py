import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.models.mesh_models import MESH_MODELS


@pytest.mark.parametrize("name", MESH_MODELS)
def test_every_model_is_built_from_plain_arguments(name, mesh_windows, mesh_arguments, tmp_path):
    model = MESH_MODELS[name](**mesh_arguments, channels=8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({"config": model.config(), "state": model.state_dict()}, tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    again = MESH_MODELS[name](**saved["config"])
    again.load_state_dict(saved["state"], strict=True)
    batch = Batch.from_data_list([mesh_windows[0], mesh_windows[8]])
    assert torch.equal(model.eval()(batch), again.eval()(batch))
