from pyg_stmamba.simulation.freeway import (
    FreewayHistory,
    FreewayNetwork,
    FundamentalDiagram,
    simulate,
)
from pyg_stmamba.simulation.freeway_demand import (
    daily_profile,
    random_demand,
    random_incidents,
    wandering_capacity,
)
from pyg_stmamba.simulation.freeway_layout import Freeway, freeway_layout

__all__ = [
    "Freeway",
    "FreewayHistory",
    "FreewayNetwork",
    "FundamentalDiagram",
    "daily_profile",
    "freeway_layout",
    "random_demand",
    "random_incidents",
    "simulate",
    "wandering_capacity",
]
