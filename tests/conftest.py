import contextlib
import os
from pathlib import Path
from unittest.mock import patch

import pytest

# Triton asks once, when it is imported, whether it shall interpret its kernels. Where there is no
# GPU it shall; that tests of those kernels want it too is said by their fixture.
with patch.dict(os.environ, TRITON_INTERPRET="1"):
    import torch

    if not torch.cuda.is_available():
        with contextlib.suppress(ImportError):
            import triton.language  # noqa: F401


def pytest_addoption(parser):
    parser.addoption(
        "--implementation",
        metavar="NAME",
        help="let this implementation of every op run on all inputs that it takes",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "choice: tests which implementation is chosen")
    if name := config.getoption("--implementation"):
        from tests.forced_implementation import ForcedImplementation

        config.pluginmanager.register(ForcedImplementation(name))


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
