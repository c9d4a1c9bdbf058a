from torch.nn import Module

from .baselines import HistoricalAverage, LastValue, LinearAutoregression
from .ensemble import Ensemble
from .st_mamba import STMamba

MODELS: dict[str, type[Module]] = {
    "st-mamba": STMamba,
}

__all__ = [
    "MODELS",
    "Ensemble",
    "HistoricalAverage",
    "LastValue",
    "LinearAutoregression",
    "STMamba",
]
