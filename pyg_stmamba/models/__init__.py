from torch.nn import Module

from .baselines import HistoricalAverage, LastValue, LinearAutoregression
from .ensemble import Ensemble
from .performer_forecaster import PerformerForecaster
from .spatio_temporal_performer import SpatioTemporalPerformer
from .st_mamba import STMamba

MODELS: dict[str, type[Module]] = {
    "st-mamba": STMamba,
    "performer-forecaster": PerformerForecaster,
}

__all__ = [
    "MODELS",
    "Ensemble",
    "HistoricalAverage",
    "LastValue",
    "LinearAutoregression",
    "PerformerForecaster",
    "STMamba",
    "SpatioTemporalPerformer",
]
