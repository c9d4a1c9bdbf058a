import os
import pickle
import sys

import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from pyg_stmamba.data.mesh_files.hdf5_array import HDF5Array


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(6, 5, 2)).astype(np.float32)


@pytest.fixture(params=[{}, {"chunks": (1, 5, 2), "compression": "gzip"}], ids=["plain", "gzip"])
def lazy(request, tmp_path, values):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("group/x", data=values, **request.param)
    return HDF5Array(tmp_path / "a.h5", "group/x")


def test_reads_what_is_asked_for(lazy, values):
    np.testing.assert_array_equal(lazy[2:4], values[2:4])
    np.testing.assert_array_equal(lazy[-1], values[-1])
    np.testing.assert_array_equal(np.asarray(lazy), values)
    assert np.asarray(lazy, dtype=np.float64).dtype == np.float64
    assert (lazy.shape, lazy.dtype, len(lazy)) == ((6, 5, 2), np.float32, 6)
    assert str(lazy).startswith("HDF5Array([6, 5, 2], float32, '")


def test_copies_are_small_and_work(lazy, values):
    pickled = pickle.dumps(lazy)
    assert len(pickled) < 600
    np.testing.assert_array_equal(pickle.loads(pickled)[1:3], values[1:3])


class Frame(Dataset):
    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, place):
        return os.getpid(), self.frames[place]


def test_loader_workers(lazy, values):
    lazy[0]
    loader = DataLoader(Frame(lazy), batch_size=None, num_workers=2, multiprocessing_context="fork")
    processes, read = zip(*loader, strict=True)
    assert len(set(processes)) == 2
    assert os.getpid() not in processes
    np.testing.assert_array_equal(np.stack(read), values)


def test_every_process_opens_the_file_itself(lazy, monkeypatch):
    opened = []
    real = h5py.File

    def remember(*args, **kwargs):
        opened.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(h5py, "File", remember)
    lazy[0]
    lazy[1]
    assert opened == []
    monkeypatch.setattr(os, "getpid", lambda: -1)
    lazy[0]
    lazy[1]
    assert len(opened) == 1


def test_a_changed_file_is_refused(lazy, values):
    twin = pickle.loads(pickle.dumps(lazy))
    with h5py.File(lazy.path.with_name("new"), "w") as file:
        file["group/x"] = values + 1
    os.replace(lazy.path.with_name("new"), lazy.path)
    # The old file stays open here, so what was opened is still what is read.
    np.testing.assert_array_equal(twin[0], values[0])
    np.testing.assert_array_equal(HDF5Array(lazy.path, "group/x")[0], values[0] + 1)


def test_another_process_refuses_a_changed_file(lazy, monkeypatch):
    with h5py.File(lazy.path.with_name("new"), "w") as file:
        file["other"] = 1
    os.replace(lazy.path.with_name("new"), lazy.path)
    monkeypatch.setattr(os, "getpid", lambda: -2)
    with pytest.raises(ValueError, match=r"a\.h5 has changed since it was opened"):
        lazy[0]


def test_damage_is_named(tmp_path):
    path = tmp_path / "a.h5"
    noise = np.random.default_rng(0).normal(size=(10, 100))
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=noise, chunks=(10, 100), fletcher32=True)
        place = data.id.get_chunk_info(0).byte_offset
    broken = bytearray(path.read_bytes())
    broken[place + 9] ^= 1
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"a\.h5 is damaged at x: "):
        HDF5Array(path, "x")[0]


def test_without_h5py(lazy, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setattr(os, "getpid", lambda: -3)
    with pytest.raises(ImportError, match=r"pip install 'pyg-stmamba\[train\]'"):
        lazy[0]
