import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+?)"', (here / "pyg_stmamba/__init__.py").read_text())[1]

extras = {
    "train": [
        "lightning>=2.6.6",
        "jsonargparse[signatures]>=4.40",
        "matplotlib>=3.8",
        "h5py>=3.10",
    ],
    "mesh": ["pyvista>=0.44", "h5py>=3.10"],
    "cuda": ["mamba-ssm>=2.2", "causal-conv1d>=1.4"],
    "scatter": ["torch-scatter>=2.1"],
    "test": [
        "pytest>=8",
        "pytest-xdist>=3",
        "hypothesis>=6",
        "transformers>=5",
        "mambapy>=1.2",
        "performer-pytorch>=1.1.4",
        "setuptools",  # performer-pytorch imports distutils
        "x-transformers>=2.31",
        "pandas>=2",
        "meshio>=5.3",
        "scikit-fem>=10",
        "tfrecord>=1.14.6",
        'triton>=3.3; sys_platform == "linux"',
    ],
    "dev": ["ruff", "mypy", "import-linter", "pre-commit"],
}
# What installs without a compiler.
extras["all"] = extras["train"] + extras["mesh"]

setup(
    name="pyg-stmamba",
    version=version,
    description="Graphs whose nodes carry time series, for PyTorch Geometric",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["pyg_stmamba", "pyg_stmamba.*"]),
    package_data={"pyg_stmamba": ["py.typed"]},
    install_requires=[
        "torch>=2.6",
        "torch-geometric>=2.6",
        "numpy>=1.26",
        "scipy>=1.11",
        "einops>=0.8",
        "networkx>=3.2",
        "tqdm>=4.66",
        "numba>=0.60",
    ],
    extras_require=extras,
    entry_points={"console_scripts": ["pyg-stmamba = pyg_stmamba.cli:main"]},
)
