import copy
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import types
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pyg_stmamba.data import TemporalGraph, split_windows
from pyg_stmamba.datasets import DATASETS
from pyg_stmamba.datasets.download import RawFile
from pyg_stmamba.datasets.series_dataset import SeriesDataset

VALUES = np.arange(12.0).reshape(6, 2) + 1


class Tiny(SeriesDataset):
    num_steps_upstream, num_nodes_upstream = 6, 2
    known: tuple[RawFile, ...] = (RawFile("a.txt", "ask the librarian"),)

    @property
    def raw_files(self):
        return self.known

    @property
    def processed_file_names(self):
        return ["tiny.pt"]

    def read(self):
        values = np.loadtxt(self.raw_path("a.txt"))
        return TemporalGraph.from_arrays(
            values,
            timestamps=np.arange(len(values)) * 300,
            edge_index=torch.tensor([[0], [1]]),
            edge_weight=torch.tensor([0.5]),
            name="Tiny",
        )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "raw").mkdir()
    np.savetxt(tmp_path / "raw" / "a.txt", VALUES)
    return tmp_path


def double(data):
    data.x = data.x * 2
    return data


def same(one, other):
    one, other = one.to_dict(), other.to_dict()
    assert one.keys() == other.keys()
    for a, b in zip(one.values(), other.values(), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_is_a_pyg_data_set(root):
    dataset = Tiny(root)
    assert len(dataset) == 1
    assert str(dataset) == "Tiny()"
    assert isinstance(dataset[0], TemporalGraph)
    assert isinstance(dataset[0], Data)
    np.testing.assert_array_equal(dataset[0].x[..., 0].numpy().T, VALUES)
    assert [p.rsplit("/", 2)[1:] for p in dataset.raw_paths] == [["raw", "a.txt"]]


def test_what_is_loaded_is_what_was_made(root):
    first, second = Tiny(root), Tiny(str(root))
    same(first.read(), second[0])
    assert second[0].node_id == ["0", "1"]
    assert second[0].timestamps.tolist() == [[0, 300, 600, 900, 1200, 1500]]


def test_does_not_process_twice_unless_asked(root):
    Tiny(root)
    np.savetxt(root / "raw" / "a.txt", VALUES + 1)
    assert float(Tiny(root)[0].x[0, 0, 0]) == 1
    assert float(Tiny(root, force_reload=True)[0].x[0, 0, 0]) == 2
    assert float(Tiny(root)[0].x[0, 0, 0]) == 2


def test_transforms(root):
    assert float(Tiny(root, transform=double)[0].x[0, 0, 0]) == 2
    assert float(Tiny(root, pre_transform=double, force_reload=True)[0].x[0, 0, 0]) == 2
    with pytest.warns(UserWarning, match="made with pre_transform=<function double.*force_reload"):
        assert float(Tiny(root)[0].x[0, 0, 0]) == 2


def test_the_same_function_in_another_run_is_the_same_transform(root):
    # An equal function at another address, as in another process.
    other = types.FunctionType(double.__code__, {}, "double")
    assert repr(other) != repr(double)
    Tiny(root, pre_transform=double)
    Tiny(root, pre_transform=other)


def test_prints_nothing(root, capfd, monkeypatch):
    # PyG itself keeps silent where it sees this variable.
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    Tiny(root)
    assert capfd.readouterr() == ("", "")


def test_processed_files_hold_nothing_but_tensors_and_plain_values(root):
    Tiny(root)
    content = torch.load(root / "processed" / "tiny.pt", weights_only=True)
    assert set(content) == {"graph", "pre_transform"}
    assert os.listdir(root / "processed") == ["tiny.pt"]


def with_counter(data):
    data.extra = Counter("abc")
    data.more = np.random.default_rng(0)
    return data


def test_refuses_to_write_what_could_not_be_read_back(root):
    Tiny(root)
    with pytest.raises(TypeError, match=r"numpy\.random\._pcg64\.PCG64.*pre_transform may add"):
        Tiny(root, pre_transform=with_counter, force_reload=True)
    assert float(Tiny(root)[0].x[0, 0, 0]) == 1


@pytest.mark.parametrize("moment", ["save", "replace", "fsync"])
def test_a_fault_in_the_middle_leaves_the_old_file_whole(root, monkeypatch, moment):
    Tiny(root)
    before = (root / "processed" / "tiny.pt").read_bytes()
    np.savetxt(root / "raw" / "a.txt", VALUES + 1)
    saved = torch.save

    def half(content, file):
        saved(content, file)
        file.truncate(100)
        raise OSError(28, "No space left on device")

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if moment == "save":
            patch.setattr(torch, "save", half)
        else:
            patch.setattr(os, moment, fail)
        with pytest.raises(OSError, match="No space left"):
            Tiny(root, force_reload=True)
    assert (root / "processed" / "tiny.pt").read_bytes() == before
    assert os.listdir(root / "processed") == ["tiny.pt"]
    assert float(Tiny(root, force_reload=True)[0].x[0, 0, 0]) == 2


def test_a_kill_in_the_middle_leaves_nothing_under_the_name(root):
    script = f"""
import os, signal, sys, torch
sys.path.insert(0, {os.path.dirname(__file__)!r})
saved = torch.save
def killed(content, file):
    saved(content, file)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed
from test_series_dataset import Tiny
assert "h5py" not in sys.modules, "only reading an HDF5 file may need it"
Tiny({str(root)!r})
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    left = os.listdir(root / "processed")
    assert len(left) == 1
    assert left[0].endswith(".tmp")
    assert float(Tiny(root)[0].x[0, 0, 0]) == 1


def test_a_stale_temporary_file_does_not_matter(root):
    (root / "processed").mkdir()
    (root / "processed" / f".tiny.pt.{os.getpid()}.tmp").write_bytes(b"half a file")
    assert float(Tiny(root)[0].x[0, 0, 0]) == 1
    assert os.listdir(root / "processed") == ["tiny.pt"]


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish", pickle.dumps({"graph": Counter}, protocol=2), "half", "list", "other"],
)
def test_a_damaged_processed_file_is_named(root, content):
    path = root / "processed" / "tiny.pt"
    Tiny(root)
    if content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content in ("list", "other"):
        torch.save([1] if content == "list" else {"a": 1}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tiny\.pt is damaged.*force_reload=True"):
        Tiny(root)
    assert float(Tiny(root, force_reload=True)[0].x[0, 0, 0]) == 1


def test_processed_files_cannot_run_code(root):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(root / "trace"),)

    Tiny(root)
    torch.save({"graph": Evil(), "pre_transform": "None"}, root / "processed" / "tiny.pt")
    with pytest.raises(ValueError, match="damaged"):
        Tiny(root)
    assert not (root / "trace").exists()


def known(path, change=b"", size=True):
    content = path.read_bytes()
    digest = hashlib.sha256(content + change).hexdigest()
    return RawFile("a.txt", "the library", (), digest, size=len(content) if size else None)


def test_a_file_of_the_right_size_with_the_wrong_hash_is_damaged(root, monkeypatch):
    monkeypatch.setattr(Tiny, "known", (known(root / "raw" / "a.txt", b"x"),))
    with pytest.raises(ValueError, match=r"a\.txt has the size of the upstream file, but SHA-256 "):
        Tiny(root)
    assert not os.listdir(root / "processed")


def test_a_whole_but_other_file_is_warned_of(root, monkeypatch):
    monkeypatch.setattr(Tiny, "known", (known(root / "raw" / "a.txt", b"x", size=False),))
    with pytest.warns(UserWarning, match="covers all sensors and steps, but is not the published"):
        Tiny(root)


def test_a_subset_or_the_published_file_is_not(root, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(Tiny, "known", (known(root / "raw" / "a.txt"),))
        Tiny(root)
        monkeypatch.setattr(Tiny, "known", (known(root / "raw" / "a.txt", b"x", size=False),))
        np.savetxt(root / "raw" / "a.txt", VALUES[:5])
        Tiny(root, force_reload=True)


def test_a_missing_file_is_asked_for_only_when_it_is_needed(root):
    (root / "raw" / "a.txt").rename(root / "kept")
    message = r"a\.txt could not be downloaded(.|\n)*ask the librarian"
    with pytest.raises(RuntimeError, match=message):
        Tiny(root)
    (root / "kept").rename(root / "raw" / "a.txt")
    Tiny(root)


def test_copies_and_pickles(root):
    dataset = Tiny(root)
    for other in (copy.deepcopy(dataset), copy.copy(dataset), dataset.copy(), dataset[:1]):
        same(dataset[0], other[0])


def test_the_home_folder_is_found(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root))
    assert float(Tiny("~")[0].x[0, 0, 0]) == 1


@pytest.mark.parametrize(
    ("name", "index", "steps"),
    [
        ("metr-la", "METRLA", 34272),
        ("pems-bay", "PEMSBAY", 52116),
        ("pems03", "PEMS03", 26208),
        ("pems04", "PEMS04", 16992),
        ("pems07", "PEMS07", 28224),
        ("pems08", "PEMS08", 17856),
    ],
)
def test_protocols_give_the_published_windows(shared_data, name, index, steps):
    maker = DATASETS[name]
    protocol = getattr(maker, "func", maker).protocol
    window, horizon, split, order = protocol[:4]
    windows = split_windows(steps, window, horizon, split, order)
    with np.load(shared_data / "splits" / f"{index}_index.npz") as published:
        for part in ("train", "val", "test"):
            np.testing.assert_array_equal(windows[part].numpy(), published[part][:, 0])


@pytest.mark.parametrize(
    ("name", "window", "split"),
    [
        ("pemsd7m", 12, (0.6, 0.2, 0.2)),
        ("largest-sd", 12, (0.6, 0.2, 0.2)),
        ("aqi36", 24, (0.7, 0.1, 0.2)),
    ],
)
def test_protocols_without_published_indices(name, window, split):
    maker = DATASETS[name]
    protocol = getattr(maker, "func", maker).protocol
    assert (protocol.window, protocol.horizon, protocol.split) == (window, window, split)
    assert protocol.order == "windows-first"
    assert max(protocol.report_steps) == protocol.horizon
