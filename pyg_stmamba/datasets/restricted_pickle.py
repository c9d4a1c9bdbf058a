import pickle
from pathlib import Path
from typing import Any

import numpy as np

_NDARRAY = object()


class _Refused(Exception):
    pass


def _empty_array(subtype: object, shape: object, typecode: object) -> np.ndarray:
    # The shape asked for is not believed: the state that follows brings its own bytes.
    if subtype is not _NDARRAY:
        raise pickle.UnpicklingError(f"an array of type {subtype!r}")
    return np.empty(0, dtype=np.int8)


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(bytes(buffer), dtype=dtype).reshape(shape, order=order).copy(order)


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("builtins", "frozenset"): frozenset,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def load_pickle(path: str | Path) -> Any:
    r"""Reads a pickle that may hold numpy arrays, built-in containers, numbers
    and text, and nothing else.

    Whatever else a pickle names is neither imported nor called. Pickles of
    Python 2 are read with their byte strings as Latin-1 text, as numpy wants it.

    Args:
        path: The file.

    Raises:
        ValueError: If the pickle names anything else, or cannot be read; the
            message names the file and the cause.
    """
    try:
        with open(path, "rb") as file:
            return _RestrictedUnpickler(file, encoding="latin1").load()
    except _Refused as error:
        raise ValueError(
            f"{path}: refused, for this pickle asks for {error}, and only numpy arrays, built-in "
            "containers, numbers and text are read. Nothing of it was run; fetch the file anew "
            "from its source"
        ) from None
    except OSError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: truncated or corrupted pickle ({reason})") from error
