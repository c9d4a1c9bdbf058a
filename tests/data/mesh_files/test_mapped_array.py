import copy
import os
import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from pyg_stmamba.data.mesh_files.mapped_array import MappedArray


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(6, 5, 2)).astype(np.float32)


@pytest.fixture
def mapped(tmp_path, values):
    path = tmp_path / "file"
    # An odd offset, which leaves no number at a multiple of its size.
    path.write_bytes(b"abc" + values.tobytes() + b"rest")
    return MappedArray(path, 3, values.shape, values.dtype)


def test_reads_what_is_asked_for(mapped, values):
    np.testing.assert_array_equal(mapped[2:4], values[2:4])
    np.testing.assert_array_equal(mapped[-1], values[-1])
    np.testing.assert_array_equal(mapped[...], values)
    np.testing.assert_array_equal(np.asarray(mapped), values)
    assert np.asarray(mapped, dtype=np.float64).dtype == np.float64
    assert (mapped.shape, mapped.dtype, len(mapped)) == ((6, 5, 2), np.float32, 6)
    assert str(mapped).startswith("MappedArray([6, 5, 2], float32, '")


def test_what_is_read_is_a_proper_array_of_its_own(mapped, values):
    part = mapped[0:1]
    assert type(part) is np.ndarray
    assert part.flags.writeable
    assert part.flags.aligned
    part[:] = 0
    np.testing.assert_array_equal(mapped[0:1], values[0:1])


def test_copies_are_small_and_work(mapped, values):
    mapped[0]
    pickled = pickle.dumps(mapped)
    assert len(pickled) < 600
    for twin in (pickle.loads(pickled), copy.deepcopy(mapped)):
        np.testing.assert_array_equal(twin[1:3], values[1:3])


def test_relative_paths_stay_right_when_the_folder_changes(tmp_path, values, monkeypatch):
    (tmp_path / "file").write_bytes(values.tobytes())
    monkeypatch.chdir(tmp_path)
    mapped = MappedArray("file", 0, values.shape, values.dtype)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(mapped[:], values)


class Frame(Dataset):
    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, place):
        return os.getpid(), self.frames[place]


def test_loader_workers(mapped, values):
    mapped[0]
    frames = Frame(mapped)
    loader = DataLoader(frames, batch_size=None, num_workers=2, multiprocessing_context="fork")
    processes, read = zip(*loader, strict=True)
    assert len(set(processes)) == 2
    assert os.getpid() not in processes
    np.testing.assert_array_equal(np.stack(read), values)


def test_a_changed_file_is_refused(mapped):
    with mapped.path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="file has changed since it was opened"):
        mapped[0]


def test_a_file_that_is_replaced_while_in_use_is_read_on(mapped, values, tmp_path):
    mapped[0]
    (tmp_path / "new").write_bytes(bytes(500))
    os.replace(tmp_path / "new", mapped.path)
    np.testing.assert_array_equal(mapped[:], values)
