import crc32c as reference
import numpy as np
import pytest
import tfrecord
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_stmamba.data.mesh_files.crc32c import ROW, crc32c, masked_crc32c


# RFC 3720, appendix B.4
@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_values(data, checksum):
    assert crc32c(data) == checksum


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_equals_the_package_for_short_data(data):
    assert crc32c(data) == reference.crc32c(data)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("difference", [-5, -4, -3, -1, 0, 1, 3, 4, 5, 2 * ROW + 7])
def test_equals_the_package_where_rows_begin_and_end(rows, difference):
    data = np.random.default_rng(0).bytes(4 * ROW * rows + difference)
    assert crc32c(data) == reference.crc32c(data)


def test_takes_any_contiguous_buffer_and_leaves_it_alone():
    data = np.random.default_rng(0).normal(size=(70, 300))
    before = data.copy()
    expected = reference.crc32c(data.tobytes())
    assert crc32c(data) == crc32c(memoryview(data)) == crc32c(bytearray(data.tobytes())) == expected
    odd = np.frombuffer(b"x" + data.tobytes(), dtype=np.uint8)[1:]
    assert crc32c(odd) == expected
    np.testing.assert_array_equal(data, before)


def test_one_flipped_bit_changes_it():
    data = bytearray(np.random.default_rng(0).bytes(4 * ROW + 9))
    whole = crc32c(data)
    for place in (0, 3, 4, 8, 4 * ROW, 4 * ROW + 8):
        data[place] ^= 16
        assert crc32c(data) != whole
        data[place] ^= 16
    assert crc32c(data) == whole


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_masked_as_in_files(data):
    stored = tfrecord.TFRecordWriter.masked_crc(data)
    assert masked_crc32c(data).to_bytes(4, "little") == stored
