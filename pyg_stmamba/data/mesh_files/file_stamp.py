from __future__ import annotations

import os


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    r"""Returns the size of a file and the time of its last change, by which it is known again.

    Args:
        path (str): The file.
    """
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
