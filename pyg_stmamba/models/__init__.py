from torch.nn import Module

from .baselines import HistoricalAverage, LastValue, LinearAutoregression
from .ensemble import Ensemble
from .imputation_baselines import LinearInterpolation, MeanImputation, NearestStations
from .imputer import Imputer
from .mesh_graph_net import MeshGraphNet
from .mesh_model import MeshModel
from .mesh_models import MESH_MODELS
from .mesh_persistence import MeshPersistence
from .mesh_simulator import MeshSimulator
from .performer_forecaster import PerformerForecaster
from .performer_imputer import PerformerImputer
from .space_time_transformer import SpaceTimeTransformer
from .spatio_temporal_performer import SpatioTemporalPerformer
from .st_mamba import STMamba
from .transformer_forecaster import TransformerForecaster

MODELS: dict[str, type[Module]] = {
    "st-mamba": STMamba,
    "performer-forecaster": PerformerForecaster,
    "transformer-forecaster": TransformerForecaster,
}

__all__ = [
    "MESH_MODELS",
    "MODELS",
    "Ensemble",
    "HistoricalAverage",
    "Imputer",
    "LastValue",
    "LinearAutoregression",
    "LinearInterpolation",
    "MeanImputation",
    "MeshGraphNet",
    "MeshModel",
    "MeshPersistence",
    "MeshSimulator",
    "NearestStations",
    "PerformerForecaster",
    "PerformerImputer",
    "STMamba",
    "SpaceTimeTransformer",
    "SpatioTemporalPerformer",
    "TransformerForecaster",
]
