from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

# The polynomial of Castagnoli, its highest power in the lowest bit.
POLYNOMIAL = 0x82F63B78
ALL_ONES = 0xFFFFFFFF
# These four bytes in front of the data set all bits of the register, where the standard starts.
START = np.array([0x641F6454], dtype=np.uint32)
ROW = 2**14


def crc32c(data: Any) -> int:
    r"""The checksum CRC-32C (Castagnoli), computed for many words side by side.

    A checksum is linear over bits: a word that stands :math:`n` words in front of another counts
    as much as the other one changed by a fixed linear map that depends on :math:`n`. So the data
    is folded, row on row and then half on half, until one word is left.

    Args:
        data (bytes): The data, or any other contiguous buffer.

    Returns:
        int: The checksum, 0 to :math:`2^{32} - 1`.
    """
    stream = np.frombuffer(data, dtype=np.uint8)
    rest = len(stream) % (4 * ROW)
    # Zeros in front of all change nothing and fill the first word up.
    words = np.zeros(1 + -(-rest // 4), dtype=np.uint32)
    words.view(np.uint8)[4 * len(words) - rest - 4 :] = [*START.view(np.uint8), *stream[:rest]]
    words = _folded(words, ROW)
    if rest < len(stream):
        row = np.zeros(ROW, dtype=np.uint32)
        row[ROW - len(words) :] = words
        for start in range(rest, len(stream), 4 * ROW):
            row = _moved(row, ROW.bit_length() - 1)
            row.view(np.uint8)[:] ^= stream[start : start + 4 * ROW]
        words = row
    return int(_moved(_folded(words, 1), 0)[0]) ^ ALL_ONES


def masked_crc32c(data: Any) -> int:
    r"""The checksum as TFRecord files hold it: rotated, and a constant added.

    Args:
        data (bytes): The data, or any other contiguous buffer.
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & ALL_ONES


def _folded(words: np.ndarray, count: int) -> np.ndarray:
    """At most so many words, a power of two, with the same checksum."""
    while len(words) > count:
        level = (len(words) - 1).bit_length() - 1
        front = len(words) - 2**level
        moved = _moved(words[:front], level)
        words = words[front:].copy()
        words[len(words) - front :] ^= moved
    return words


def _moved(words: np.ndarray, level: int) -> np.ndarray:
    """What the words become when they move back by 2^level places."""
    tables = _tables(level)
    parts = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 4)
    moved = tables[0].take(parts[:, 0])
    for place in range(1, 4):
        moved ^= tables[place].take(parts[:, place])
    return moved


@cache
def _tables(level: int) -> np.ndarray:
    """The map of each value of each of the four bytes of a word, [4, 256]."""
    tables = np.zeros((4, 256), dtype=np.uint32)
    for bit, image in enumerate(_images(level)):
        place, power = divmod(bit, 8)
        tables[place, 2**power : 2 ** (power + 1)] = tables[place, : 2**power] ^ image
    return tables


@cache
def _images(level: int) -> np.ndarray:
    """The map of each single bit; twice as far is the same map twice."""
    if level > 0:
        return _moved(_images(level - 1), level - 1)
    images = 2 ** np.arange(32, dtype=np.uint32)
    for _ in range(32):
        images = images >> 1 ^ images % 2 * np.uint32(POLYNOMIAL)
    return images
