import subprocess
import sys

OPTIONAL = [
    "lightning",
    "jsonargparse",
    "matplotlib",
    "h5py",
    "meshio",
    "mamba_ssm",
    "causal_conv1d",
    "torch_scatter",
    "triton",
    "numba",
    "pandas",
    "transformers",
]
SLOW = ["networkx", "scipy.sparse", "scipy.spatial"]


def test_importing_the_package_imports_no_optional_and_no_slow_package():
    """In a process of its own, against what torch-geometric brings by itself."""
    program = (
        "import sys, torch, torch_geometric.nn, torch_geometric.data, torch_geometric.loader\n"
        "before = set(sys.modules)\n"
        "import pyg_stmamba\n"
        f"print([name for name in {OPTIONAL + SLOW} if name in set(sys.modules) - before])"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    assert result.stderr == ""


def test_public_names():
    import pyg_stmamba

    assert all(hasattr(pyg_stmamba, name) for name in pyg_stmamba.__all__)
