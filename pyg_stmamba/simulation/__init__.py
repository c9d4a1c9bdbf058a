from pyg_stmamba.simulation.cylinder_flow import random_cylinder_flow, simulate_cylinder_flow
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
from pyg_stmamba.simulation.meshing import channel_mesh

__all__ = [
    "Freeway",
    "FreewayHistory",
    "FreewayNetwork",
    "FundamentalDiagram",
    "channel_mesh",
    "daily_profile",
    "freeway_layout",
    "random_cylinder_flow",
    "random_demand",
    "random_incidents",
    "simulate",
    "simulate_cylinder_flow",
    "wandering_capacity",
]
