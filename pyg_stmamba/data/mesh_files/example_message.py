from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

KINDS = {1: "bytes_list", 2: "float_list", 3: "int64_list"}

# How protocol buffers mark what follows a field's number; only the second has a length of its own.
VARINT, DELIMITED = 0, 2
FIXED_SIZES = {1: 8, 5: 4}
PLAIN = {"float_list": 5, "int64_list": VARINT}


class Feature(NamedTuple):
    r"""Where the values of a feature lie in its message.

    Args:
        kind (str): :obj:`"bytes_list"`, :obj:`"float_list"` or :obj:`"int64_list"`.
        parts (list[slice]): The bytes of each value of a :obj:`bytes_list`; of the other kinds,
            the bytes of some values each.
    """

    kind: str
    parts: list[slice]


def encode_example(features: Mapping[str, bytes | Sequence[bytes] | np.ndarray]) -> bytes:
    r"""Writes a :obj:`tf.train.Example` message.

    .. code-block:: python

        record = encode_example({"pos": pos.tobytes(), "time": np.array([0.1], np.float32)})

    Args:
        features (dict[str, bytes or list[bytes] or numpy.ndarray]): The features: bytes become a
            :obj:`bytes_list`, arrays of float32 a :obj:`float_list`, arrays of whole numbers an
            :obj:`int64_list`.

    Raises:
        ValueError: If an array is of another type.
    """
    entries: list[bytes] = []
    for name, value in features.items():
        entry = _delimited(1, [name.encode()]) + _delimited(2, _encoded_feature(name, value))
        entries += _delimited(1, entry)
    return b"".join(_delimited(1, entries))


def decode_example(data: Any) -> dict[str, list[bytes] | np.ndarray]:
    r"""Reads a :obj:`tf.train.Example` message.

    Args:
        data (bytes): The message, or any other contiguous buffer.

    Returns:
        dict[str, list[bytes] or numpy.ndarray]: The features: lists of bytes, or flat arrays of
        float32 or int64.

    Raises:
        ValueError: If this is no such message; the message of the error names the byte.
    """
    stream = np.frombuffer(data, dtype=np.uint8)
    return {name: _values(stream, feature) for name, feature in find_features(stream).items()}


def find_features(data: Any) -> dict[str, Feature]:
    r"""Finds where the features of a :obj:`tf.train.Example` message lie, without reading them.

    Args:
        data (bytes): The message, or any other contiguous buffer.

    Raises:
        ValueError: If this is no such message; the message of the error names the byte.
    """
    stream = np.frombuffer(data, dtype=np.uint8)
    found = {}
    for features in _delimited_parts(stream, slice(0, len(stream)), 1):
        for entry in _delimited_parts(stream, features, 1):
            # Where a field comes more than once, the last one holds.
            names = [stream[part].tobytes() for part in _delimited_parts(stream, entry, 1)]
            try:
                name = names[-1].decode() if names else ""
            except UnicodeDecodeError as error:
                raise ValueError(f"the name {names[-1]!r} of a feature is not UTF-8") from error
            found[name] = _found_feature(stream, entry)
    return found


def _found_feature(stream: np.ndarray, entry: slice) -> Feature:
    feature = Feature("bytes_list", [])
    for value in _delimited_parts(stream, entry, 2):
        for number, wire, values in _fields(stream, value):
            if number in KINDS and wire == DELIMITED:
                kind = KINDS[number]
                # Numbers come packed, all in one part, or one by one.
                wires = (DELIMITED,) if kind == "bytes_list" else (DELIMITED, PLAIN[kind])
                parts = [p for n, w, p in _fields(stream, values) if n == 1 and w in wires]
                before = feature.parts if feature.kind == kind else []
                feature = Feature(kind, before + parts)
    return feature


def _delimited_parts(stream: np.ndarray, place: slice, number: int) -> Iterator[slice]:
    return (p for n, wire, p in _fields(stream, place) if n == number and wire == DELIMITED)


def _fields(stream: np.ndarray, place: slice) -> Iterator[tuple[int, int, slice]]:
    """Number, wire type and bytes of each field of a message."""
    byte = place.start
    while byte < place.stop:
        begin = byte
        tag, byte = _read_varint(stream, byte, place.stop)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            start, (_, byte) = byte, _read_varint(stream, byte, place.stop)
        elif wire == DELIMITED:
            length, start = _read_varint(stream, byte, place.stop)
            byte = start + length
        elif wire in FIXED_SIZES:
            start, byte = byte, byte + FIXED_SIZES[wire]
        if number == 0 or wire not in (VARINT, DELIMITED, *FIXED_SIZES) or byte > place.stop:
            raise ValueError(f"no tf.train.Example message: it is damaged at byte {begin}")
        yield number, wire, slice(start, byte)


def _read_varint(stream: np.ndarray, byte: int, stop: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first, and the byte after it."""
    number = 0
    for place in range(10):
        if byte + place >= stop:
            break
        digit = int(stream[byte + place])
        number |= (digit & 127) << 7 * place
        if digit < 128:
            return number, byte + place + 1
    raise ValueError(f"no tf.train.Example message: a number at byte {byte} does not end")


def _values(stream: np.ndarray, feature: Feature) -> list[bytes] | np.ndarray:
    parts = [stream[part] for part in feature.parts]
    if feature.kind == "bytes_list":
        return [part.tobytes() for part in parts]
    joined = np.concatenate([np.zeros(0, dtype=np.uint8), *parts])
    if feature.kind == "int64_list":
        return _decoded_varints(joined)
    if len(joined) % 4:
        raise ValueError(f"a float_list has {len(joined)} bytes, which are no float32 numbers")
    return joined.view("<f4").astype(np.float32)


def _decoded_varints(stream: np.ndarray) -> np.ndarray:
    ends = np.flatnonzero(stream < 128)
    if len(ends) == 0:
        return np.zeros(0, dtype=np.int64)
    starts = np.append(0, ends[:-1] + 1)
    place = np.arange(ends[-1] + 1) - np.repeat(starts, ends + 1 - starts)
    if place.max() > 9 or ends[-1] + 1 < len(stream):
        raise ValueError("an int64_list holds a number that does not end")
    digits = (stream & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(digits, starts).view(np.int64)


def _encoded_feature(name: str, value: bytes | Sequence[bytes] | np.ndarray) -> list[bytes]:
    if not isinstance(value, np.ndarray):
        values = [value] if isinstance(value, bytes) else value
        return _delimited(1, [part for one in values for part in _delimited(1, [one])])
    flat = value.ravel()
    if flat.dtype == np.float32:
        return _delimited(2, _packed(flat.astype("<f4").tobytes()))
    if np.issubdtype(flat.dtype, np.integer) and np.can_cast(flat.dtype, np.int64):
        return _delimited(3, _packed(_encoded_varints(flat.astype(np.int64))))
    raise ValueError(
        f"feature {name!r} must be bytes, float32 or whole numbers of up to 64 bits with a sign, "
        f"got {flat.dtype}"
    )


def _packed(numbers: bytes) -> list[bytes]:
    return _delimited(1, [numbers]) if numbers else []


def _encoded_varints(values: np.ndarray) -> bytes:
    rest = values.view(np.uint64)[:, None] >> np.arange(0, 70, 7, dtype=np.uint64)
    used = rest > 0
    used[:, 0] = True
    follows = np.append(used[:, 1:], np.zeros((len(used), 1), dtype=bool), axis=1)
    return (rest & 127 | follows * np.uint64(128)).astype(np.uint8)[used].tobytes()


def _delimited(number: int, parts: Sequence[bytes]) -> list[bytes]:
    sizes = np.array([number << 3 | DELIMITED, sum(map(len, parts))])
    return [_encoded_varints(sizes), *parts]
