import pickle
import struct

import numpy as np
import pytest
import tfrecord
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_stmamba.data.mesh_files.example_message import decode_example, encode_example
from pyg_stmamba.data.mesh_files.tfrecord import TFRecordFile, write_tfrecord

RECORDS = [b"first record", b"", b"the third one, a bit longer"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "some.tfrecord"
    write_tfrecord(path, RECORDS)
    return path


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=100), max_size=5))
def test_there_and_back(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("records") / "a.tfrecord"
    write_tfrecord(path, records)
    assert [record.tobytes() for record in TFRecordFile(path)] == records
    assert path.stat().st_size == sum(len(record) + 16 for record in records)


def test_the_package_reads_what_is_written(tmp_path):
    generator = np.random.default_rng(0)
    floats = generator.normal(size=1000).astype(np.float32)
    whole = generator.integers(-(2**63), 2**63 - 1, 500)
    raw = generator.bytes(300_000)
    path = tmp_path / "ours.tfrecord"
    write_tfrecord(
        path, [encode_example({"f": floats * k, "i": whole, "raw": raw}) for k in range(3)]
    )
    read = list(tfrecord.tfrecord_loader(str(path), None))
    assert len(read) == 3
    for k, record in enumerate(read):
        assert record["f"].tobytes() == (floats * k).tobytes()
        np.testing.assert_array_equal(record["i"], whole)
        assert bytes(record["raw"]) == raw


def test_reads_what_the_package_writes(tmp_path):
    generator = np.random.default_rng(1)
    floats = generator.normal(size=1000).astype(np.float32)
    whole = generator.integers(-(2**63), 2**63 - 1, 500)
    raw = generator.bytes(300_000)
    path = tmp_path / "theirs.tfrecord"
    writer = tfrecord.TFRecordWriter(str(path))
    for k in range(3):
        writer.write({"f": (floats * k, "float"), "i": (whole, "int"), "raw": (raw, "byte")})
    writer.close()
    records = TFRecordFile(path)
    assert len(records) == 3
    for k in (2, 0, 1):
        read = decode_example(records[k])
        assert read["f"].tobytes() == (floats * k).tobytes()
        np.testing.assert_array_equal(read["i"], whole)
        assert read["raw"] == [raw]


def test_bytes_are_those_of_the_package(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    raw = np.random.default_rng(2).bytes(200_000)
    write_tfrecord(ours, [encode_example({"x": raw}), encode_example({"y": np.arange(9)})])
    writer = tfrecord.TFRecordWriter(str(theirs))
    writer.write({"x": (raw, "byte")})
    writer.write({"y": (np.arange(9), "int")})
    writer.close()
    assert ours.read_bytes() == theirs.read_bytes()


def test_any_order_and_other_processes(path):
    records = TFRecordFile(path)
    assert len(records) == 3
    assert records[2].tobytes() == records[-1].tobytes() == RECORDS[2]
    assert records.mapped(0).tobytes() == RECORDS[0]
    assert pickle.loads(pickle.dumps(records))[0].tobytes() == RECORDS[0]
    assert len(pickle.dumps(records)) < 1000
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"has 3 records, asked for was {index}"):
            records[index]
    assert str(records) == f"TFRecordFile(3 records, {str(path)!r})"


def test_known_places_spare_the_pass(path, monkeypatch):
    places = TFRecordFile(path).places
    np.testing.assert_array_equal(places, [[12, 12], [40, 0], [56, 27]])
    monkeypatch.setattr("pyg_stmamba.data.mesh_files.tfrecord._record_places", None)
    assert TFRecordFile(path, places)[2].tobytes() == RECORDS[2]


def test_records_can_be_copied_to_another_file(path, tmp_path):
    write_tfrecord(tmp_path / "copy", TFRecordFile(path))
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_the_pass_reads_no_data(tmp_path):
    # A file with a hole of a terabyte, which takes no room.
    path = tmp_path / "huge"
    length = struct.pack("<Q", 2**40)
    with path.open("wb") as file:
        file.write(length + tfrecord.TFRecordWriter.masked_crc(length))
        file.truncate(2**40 + 16)
    np.testing.assert_array_equal(TFRecordFile(path).places, [[12, 2**40]])


def test_a_cut_anywhere_is_found_and_named(path, tmp_path):
    whole = path.read_bytes()
    ends = [0, 28, 44, 87]
    assert len(whole) == ends[-1]
    cut = tmp_path / "cut"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        if size in ends:
            assert len(TFRecordFile(cut)) == ends.index(size)
            continue
        number = sum(end <= size for end in ends) - 1
        in_header = size < ends[number] + 12
        byte = ends[number] if in_header else ends[number] + 12
        what = "its length and checksum" if in_header else rf"{len(RECORDS[number])} bytes of data"
        message = (
            f"cut is cut off: record {number} should have {what}.* from byte {byte} on, but the "
            f"file ends at byte {size}$"
        )
        with pytest.raises(ValueError, match=message):
            TFRecordFile(cut)


def test_every_flipped_bit_is_found_and_named(path, tmp_path):
    whole = path.read_bytes()
    broken = tmp_path / "broken"
    starts = [0, 28, 44]
    for bit in range(0, 8 * len(whole), 3):
        byte = bit // 8
        data = bytearray(whole)
        data[byte] ^= 1 << bit % 8
        broken.write_bytes(data)
        number = sum(start <= byte for start in starts) - 1
        if byte < starts[number] + 12:
            message = f"record {number} is damaged: its length at byte {starts[number]} does not"
            with pytest.raises(ValueError, match=message):
                TFRecordFile(broken)
            continue
        records = TFRecordFile(broken)
        first, last = starts[number] + 12, starts[number] + 11 + len(RECORDS[number])
        message = f"record {number} is damaged: the data from byte {first} to {last} do not have"
        with pytest.raises(ValueError, match=message):
            records[number]
        for other in {0, 1, 2} - {number}:
            assert records[other].tobytes() == RECORDS[other]
        assert len(records.mapped(number)) == len(RECORDS[number])


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*absent"):
        TFRecordFile(tmp_path / "absent")
    (tmp_path / "empty").touch()
    assert len(TFRecordFile(tmp_path / "empty")) == 0
    (tmp_path / "text").write_text("this is no TFRecord file at all")
    with pytest.raises(ValueError, match="is it a TFRecord file, and not compressed"):
        TFRecordFile(tmp_path / "text")


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    def records():
        yield b"first"
        raise RuntimeError("no second one")

    with pytest.raises(RuntimeError, match="no second one"):
        write_tfrecord(tmp_path / "a", records())
    assert list(tmp_path.iterdir()) == []
