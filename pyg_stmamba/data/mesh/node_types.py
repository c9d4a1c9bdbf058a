"""What nodes of a mesh can be to the flow."""

# The classes of MeshGraphNets, at the numbers that its files use.
NODE_TYPES = ("normal", "obstacle", "airfoil", "handle", "inflow", "outflow", "wall")

# Where the flow is computed; at all other nodes it is given from outside.
PREDICTED_TYPES = ("normal", "outflow")
