from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    r"""Hands out a temporary file name beside :obj:`path` and renames it at the end, on success
    only; :obj:`path` never holds half a file, whatever happens.

    .. code-block:: python

        with written_whole("table.csv") as temporary:
            temporary.write_text(text)

    Args:
        path (str): The file; its folder is made where it is not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that write one file must not write into one temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
