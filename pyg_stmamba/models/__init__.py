from torch.nn import Module

from .baselines import HistoricalAverage, LastValue, LinearAutoregression
from .st_mamba import STMamba

MODELS: dict[str, type[Module]] = {
    "st-mamba": STMamba,
}

__all__ = ["MODELS", "HistoricalAverage", "LastValue", "LinearAutoregression", "STMamba"]
