import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pyg_stmamba.benchmark.shapes import GraphShape, RowShape


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")


@pytest.fixture
def rows() -> RowShape:
    return RowShape(3, 7, channels=4, states=2)


@pytest.fixture
def graph() -> GraphShape:
    return GraphShape("tiny", 9, 20, steps=5, windows=2, channels=8, heads=2)


@pytest.fixture
def script() -> Callable[[str], ModuleType]:
    """Loads a script of the folder `benchmarks`."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
