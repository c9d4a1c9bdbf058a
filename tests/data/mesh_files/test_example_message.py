import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfrecord import example_pb2

from pyg_stmamba.data.mesh_files.example_message import (
    decode_example,
    encode_example,
    find_features,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32)
FEATURES = st.dictionaries(
    st.text(max_size=6),
    st.one_of(
        st.lists(st.binary(max_size=200), max_size=4),
        st.lists(FLOAT32, max_size=5).map(lambda values: np.array(values, dtype=np.float32)),
        st.lists(INT64, max_size=5).map(lambda values: np.array(values, dtype=np.int64)),
    ),
    max_size=4,
)


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert type(value) is type(other[name])
        if isinstance(value, list):
            assert value == other[name]
        else:
            assert value.dtype == other[name].dtype
            assert value.tobytes() == other[name].tobytes()


def by_protobuf(features):
    """The message that Google's protobuf makes of the features."""
    message = example_pb2.Example()
    message.features.SetInParent()
    for name, value in features.items():
        feature = message.features.feature[name]
        if isinstance(value, list):
            feature.bytes_list.value.extend(value)
            feature.bytes_list.SetInParent()
        elif value.dtype == np.float32:
            feature.float_list.value.extend(value.tolist())
            feature.float_list.SetInParent()
        else:
            feature.int64_list.value.extend(value.tolist())
            feature.int64_list.SetInParent()
    return message


@settings(deadline=None)
@given(FEATURES)
def test_there_and_back(features):
    same(decode_example(encode_example(features)), features)


@settings(deadline=None)
@given(FEATURES)
def test_reads_what_protobuf_writes_and_the_other_way_round(features):
    message = by_protobuf(features)
    same(decode_example(message.SerializeToString()), features)
    # NaN is not equal to itself, but its bytes are.
    read = example_pb2.Example.FromString(encode_example(features))
    assert read.SerializeToString(deterministic=True) == message.SerializeToString(
        deterministic=True
    )


@settings(deadline=None)
@given(FEATURES.filter(lambda features: len(features) == 1))
def test_one_feature_has_the_bytes_of_protobuf(features):
    # Of several features protobuf does not keep the order.
    assert encode_example(features) == by_protobuf(features).SerializeToString()


def test_numbers_that_are_not_packed():
    # Older writers put a tag in front of each number.
    floats = b"\x0d\x00\x00\x80\x3f" + b"\x0d\x00\x00\x00\x40"
    message = example_pb2.FloatList.FromString(floats)
    assert message.value == [1, 2]
    for kind, body, expected in (
        (2, floats, [1.0, 2.0]),
        (3, b"\x08\x05" + b"\x08\xac\x02" + b"\x0a\x02\x07\x08", [5, 300, 7, 8]),
    ):
        feature = bytes([kind << 3 | 2, len(body)]) + body
        entry = b"\x0a\x01a\x12" + bytes([len(feature)]) + feature
        features = b"\x0a" + bytes([len(entry)]) + entry
        data = b"\x0a" + bytes([len(features)]) + features
        assert decode_example(data)["a"].tolist() == expected
        packed = example_pb2.Example.FromString(data).SerializeToString()
        assert decode_example(packed)["a"].tolist() == expected


def test_later_parts_join_or_replace_earlier_ones_as_in_protobuf():
    first = by_protobuf({"a": [b"1"], "b": [b"2"]}).SerializeToString()
    second = by_protobuf({"b": np.array([3])}).SerializeToString()
    joined = decode_example(first + second)
    assert joined["a"] == [b"1"]
    assert joined["b"].tolist() == [3]
    # A feature that is named twice
    data = b"\x0a\x0a\x0a\x08\x0a\x01a\x0a\x01b\x12\x00"
    assert list(example_pb2.Example.FromString(data).features.feature) == ["b"]
    assert decode_example(data) == {"b": []}
    # A feature with a list of bytes, a list of numbers, and two lists of bytes again
    lists = b"\x0a\x03\x0a\x01x" + b"\x1a\x03\x0a\x01\x05" + b"\x0a\x03\x0a\x01y\x0a\x03\x0a\x01z"
    entry = b"\x0a\x01a\x12" + bytes([len(lists)]) + lists
    data = b"\x0a" + bytes([len(entry) + 2]) + b"\x0a" + bytes([len(entry)]) + entry
    expected = example_pb2.Example.FromString(data).features.feature["a"].bytes_list.value
    assert decode_example(data) == {"a": list(expected)} == {"a": [b"y", b"z"]}


def test_unknown_fields_are_passed_over():
    known = by_protobuf({"a": [b"1"]}).SerializeToString()
    unknown = b"\x10\x96\x01" + b"\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x2a\x02hi"
    assert decode_example(unknown + known + unknown) == {"a": [b"1"]}
    assert decode_example(b"") == {}


def test_finds_where_values_lie():
    values = [b"first", b"", b"third"]
    data = encode_example({"x": np.arange(3), "y": values})
    found = find_features(data)
    assert list(found) == ["x", "y"]
    assert found["y"].kind == "bytes_list"
    assert [data[part] for part in found["y"].parts] == values


def test_large_values_and_single_bytes():
    large = np.random.default_rng(0).bytes(1_000_000)
    data = encode_example({"large": large})
    assert decode_example(data) == {"large": [large]}
    assert example_pb2.Example.FromString(data).features.feature["large"].bytes_list.value == [
        large
    ]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", ">i4", "int64"])
def test_whole_numbers_of_all_sizes(dtype):
    numbers = np.array([[0, 1], [100, 127]]).astype(dtype)
    assert decode_example(encode_example({"a": numbers}))["a"].tolist() == [0, 1, 100, 127]


@pytest.mark.parametrize("dtype", ["float64", "uint64", "complex64", "U3"])
def test_refuses_what_the_message_cannot_hold(dtype):
    with pytest.raises(
        ValueError, match=rf"feature 'a' must be bytes, float32.* got .*{dtype[1:]}"
    ):
        encode_example({"a": np.zeros(2, dtype=dtype)})


def test_damaged_messages_name_the_byte():
    data = encode_example({"a": [b"12345"], "b": np.array([1, 2], dtype=np.float32)})
    refused = 0
    for stop in range(1, len(data)):
        with pytest.raises(ValueError, match=r"no tf.train.Example message.* at byte \d+"):
            decode_example(data[:stop])
        refused += 1
    assert refused == len(data) - 1
    for broken, message in (
        (b"\x0b", "damaged at byte 0"),  # a group, which is long out of use
        (b"\x02\x00", "damaged at byte 0"),  # field 0
        (b"\x10\x01\x0a\x05", "damaged at byte 2"),
        (b"\xff" * 12, "a number at byte 0 does not end"),
        (b"\x0a\x04\x0a\x02\x0a\x09", "damaged at byte 4"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_example(broken)


def test_damaged_lists():
    def of(kind, body):
        entry = b"\x0a\x01a\x12" + bytes([len(body) + 4, kind << 3 | 2, len(body) + 2])
        entry += b"\x0a" + bytes([len(body)]) + body
        return b"\x0a" + bytes([len(entry) + 2]) + b"\x0a" + bytes([len(entry)]) + entry

    assert decode_example(of(1, b"xyz")) == {"a": [b"xyz"]}
    with pytest.raises(ValueError, match="a float_list has 5 bytes"):
        decode_example(of(2, bytes(5)))
    for body in (b"\x01\x80", b"\xff" * 10 + b"\x01"):
        with pytest.raises(ValueError, match="an int64_list holds a number that does not end"):
            decode_example(of(3, body))
    with pytest.raises(ValueError, match="is not UTF-8"):
        decode_example(b"\x0a\x05\x0a\x03\x0a\x01\xff")
