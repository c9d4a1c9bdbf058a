import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data files; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PYG_STMAMBA_REAL_DATA", default))
    if not (folder / "metr_la" / "raw" / "metr-la.h5").exists():
        pytest.skip(f"no real data: {folder} is absent (set PYG_STMAMBA_REAL_DATA to its folder)")
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
