import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CARDS = Path(__file__).parents[2] / "datasets"


@pytest.fixture
def sample(tmp_path: Path) -> Callable[[str], Path]:
    """Gives a copy of a data set's sample, to be used as its root."""

    def copy(folder: str) -> Path:
        root = tmp_path / folder
        shutil.copytree(CARDS / folder / "sample" / "raw", root / "raw")
        return root

    return copy
