import builtins
import collections
import os
import pickle
import subprocess

import numpy as np
import pytest

from pyg_stmamba.datasets.restricted_pickle import load_pickle


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def write(path, content, protocol):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", ">f4", "bool", "U3"])
def test_reads_arrays_and_containers(tmp_path, protocol, dtype):
    array = np.array([[0, 1, 0], [1, 0, 1]]).astype(dtype)
    content = [["a", "ü"], {"a": 0, "b": (1, 2.5, None, True, b"x")}, array, {1, 2}]
    path = write(tmp_path / "a.pkl", content, protocol)
    names, table, values, numbers = load_pickle(path)
    assert (names, table, numbers) == (content[0], content[1], {1, 2})
    assert type(values) is np.ndarray
    assert values.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert values.flags.writeable
    np.testing.assert_array_equal(values, array)


def test_reads_fortran_order(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    for protocol in (2, 5):
        values = load_pickle(write(tmp_path / "a.pkl", array, protocol))
        np.testing.assert_array_equal(values, array)


def test_reads_what_python_2_wrote(tmp_path):
    # pickle.dumps([['773869'], {'773869': 0}, np.array([[1.0]], 'f4')], 0) of Python 2.
    text = (
        b"(lp0\n(lp1\nS'773869'\np2\naa(dp3\ng2\nI0\nsacnumpy.core.multiarray\n_reconstruct\np4\n"
        b"(cnumpy\nndarray\np5\n(I0\ntp6\nS'b'\np7\ntp8\nRp9\n(I1\n(I1\nI1\ntp10\ncnumpy\ndtype\n"
        b"p11\n(S'f4'\np12\nI0\nI1\ntp13\nRp14\n(I3\nS'<'\np15\nNNNI-1\nI-1\nI0\ntp16\nbI00\n"
        b"S'\\x00\\x00\\x80?'\np17\ntp18\nba."
    )
    (tmp_path / "a.pkl").write_bytes(text)
    ids, index, weights = load_pickle(tmp_path / "a.pkl")
    assert (ids, index) == (["773869"], {"773869": 0})
    np.testing.assert_array_equal(weights, np.ones((1, 1), np.float32))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch {}", "system"),
        (builtins.eval, "open({!r}, 'w')", "builtin.*eval"),
        (builtins.exec, "open({!r}, 'w')", "builtin.*exec"),
        (builtins.getattr, "{}", "builtin.*getattr"),
        (subprocess.Popen, ["touch", "{}"], "Popen"),
        (open, "{}", "open"),
        (np.load, "{}", "numpy.load"),
        (np.memmap, "{}", "memmap"),
        (pickle.loads, b"N.", "loads"),
        (collections.OrderedDict, (), "OrderedDict"),
    ],
)
def test_refuses_whatever_else_a_pickle_asks_for(tmp_path, function, argument, name, protocol):
    trace = tmp_path / "trace"
    if isinstance(argument, str):
        argument = argument.format(str(trace))
    elif isinstance(argument, list):
        argument = [part.format(str(trace)) for part in argument]
    path = write(tmp_path / "evil.pkl", [np.zeros(2), Call(function, argument)], protocol)
    with pytest.raises(ValueError, match=rf"evil.pkl: refused, .*{name}.* Nothing of it was run"):
        load_pickle(path)
    assert not trace.exists()


def test_refuses_other_ways_to_a_class(tmp_path):
    # INST and EXT1 opcodes name a global without the GLOBAL opcode.
    for text in (b"(S'true'\nios\nsystem\n.", b"cnumpy\nndarray\ncos\nsystem\n(S'true'\ntR."):
        (tmp_path / "evil.pkl").write_bytes(text)
        with pytest.raises(ValueError, match=r"os\.system"):
            load_pickle(tmp_path / "evil.pkl")
    for text in (b"\x80\x02\x82\x01.", b"Pname\n.", b"(N(lNo."):
        (tmp_path / "evil.pkl").write_bytes(text)
        with pytest.raises(ValueError, match=r"evil\.pkl"):
            load_pickle(tmp_path / "evil.pkl")


def test_arrays_take_only_the_memory_their_bytes_do(tmp_path):
    reconstruct = np.zeros(1).__reduce__()[0]
    path = write(tmp_path / "a.pkl", Call(reconstruct, np.ndarray, (10**15,), b"b"), 2)
    assert load_pickle(path).nbytes == 0
    for evil in (
        Call(np.ndarray, (10**15,)),
        Call(reconstruct, np.memmap, (1,), b"b"),
        Call(reconstruct, set, (1,), b"b"),
    ):
        path = write(tmp_path / "evil.pkl", evil, 2)
        with pytest.raises(ValueError, match=r"evil\.pkl"):
            load_pickle(path)


@pytest.mark.parametrize("length", [0, 1, 30, 200])
def test_says_that_a_file_is_truncated(tmp_path, length):
    path = tmp_path / "half.pkl"
    path.write_bytes(pickle.dumps([["a"] * 9, np.zeros((9, 9))], protocol=2)[:length])
    with pytest.raises(ValueError, match=r"half\.pkl: truncated or corrupted"):
        load_pickle(path)


def test_an_absent_file_is_an_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_pickle(tmp_path / "none.pkl")
