import importlib.util
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from pyg_stmamba.datasets import DATASETS, MESH_DATASETS
from pyg_stmamba.datasets.restricted_pickle import load_pickle

CARDS = Path(__file__).parents[1] / "datasets"
FOLDERS = sorted(path.parent for path in CARDS.glob("*/README.md"))
SAMPLED = [folder for folder in FOLDERS if (folder / "sample").exists()]
FACTS = ("name", "files", "nodes", "edges", "steps", "channels", "missing")
FACTS += ("first step", "last step", "step")
TOPICS = ("channels", "units", "sampling", "gaps", "graph", "splits", "licence", "source")


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def rows(text, header):
    """The rows of the table with this header."""
    lines = text.splitlines()
    start = lines.index("| " + " | ".join(header) + " |") + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found.append(dict(zip(header, cells, strict=True)))
    return found


def facts():
    return [(folder, row) for folder in SAMPLED for row in rows(card(folder), FACTS)]


def make(name, root):
    return DATASETS[name](root)


@pytest.mark.parametrize("name", [*DATASETS, *MESH_DATASETS])
def test_every_data_set_has_a_card(name):
    assert any(f"`{name}`" in card(folder) for folder in FOLDERS)


@pytest.mark.parametrize("folder", SAMPLED, ids=lambda f: f.name)
def test_cards_say_what_a_user_has_to_know(folder):
    text = card(folder)
    for topic in TOPICS:
        assert re.search(rf"^\| {topic} \| \S.* \|$", text, re.MULTILINE), topic
    assert "## Citation" in text
    assert (folder / "make_sample.py").exists()


@pytest.mark.parametrize(
    ("folder", "row"),
    [(folder, row) for folder, row in facts() if row["files"] == "sample"],
    ids=lambda value: value["name"] if isinstance(value, dict) else value.name,
)
def test_facts_of_the_samples(folder, row, tmp_path):
    shutil.copytree(folder / "sample" / "raw", tmp_path / "raw")
    graph = make(row["name"], tmp_path)[0]
    first, last = graph.timestamps[0, [0, -1]].tolist()

    def clock(seconds):
        return str(np.datetime64(seconds, "s")).replace("T", " ")[:16]

    missing = 100 * float((~graph.x_mask[..., 0]).double().mean())
    values = (row["name"], "sample", graph.num_nodes, graph.num_edges, graph.num_steps)
    values += (graph.x.size(-1), f"{missing:.2f} %", clock(first), clock(last))
    values += (f"{graph.step_seconds // 60} min",)
    assert row == dict(zip(FACTS, map(str, values), strict=True))


def test_every_name_with_a_sample_has_its_facts():
    named = {(row["name"], row["files"]) for _, row in facts()}
    for name in DATASETS:
        if name != "freeway":
            assert {(name, "full"), (name, "sample")} <= named


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "freeway"])
def test_sizes_and_hashes_are_those_of_the_class(name, tmp_path, monkeypatch):
    made = []

    def remember(dataset):
        made.append(dataset)

    monkeypatch.setattr("pyg_stmamba.datasets.series_dataset.SeriesDataset.download", remember)
    with pytest.raises(FileNotFoundError):
        make(name, tmp_path)
    folder, full = next((f, r) for f, r in facts() if (r["name"], r["files"]) == (name, "full"))
    assert full["nodes"] == str(made[0].num_nodes_upstream)
    assert full["steps"] == str(made[0].num_steps_upstream)
    listed = {row["file"]: row for row in rows(card(folder), ("file", "git blob id", "SHA-256"))}
    for file in made[0].raw_files:
        row = listed[f"`{file.name}`"]
        blobs = [file.git_blob, *(mirror.git_blob for mirror in file.mirrors)]
        known = [blob for blob in blobs if blob is not None]
        assert re.findall(r"\b[0-9a-f]{40}\b", row["git blob id"]) == known
        if file.sha256 is not None:
            assert row["SHA-256"] == file.sha256


def test_hashes_are_those_of_the_real_files(shared_data):
    from pyg_stmamba.datasets.download import git_blob, sha256

    real = {path.name: path for path in shared_data.glob("[mag]*/**/*") if path.is_file()}
    # The file of values that is there holds a subset of the sensors.
    del real["metr-la.h5"]
    checked = 0
    for folder in SAMPLED:
        for row in rows(card(folder), ("file", "git blob id", "SHA-256")):
            path = real.get(row["file"].strip("`"))
            if path is not None:
                assert (row["git blob id"], row["SHA-256"]) == (git_blob(path), sha256(path))
                checked += 1
    assert checked >= 12


def same(one, other):
    if one.suffix == ".h5":
        with h5py.File(one) as a, h5py.File(other) as b:
            names, others = [], []
            a.visit(names.append)
            b.visit(others.append)
            assert names == others
            for name in names:
                assert dict(a[name].attrs) == dict(b[name].attrs)
                if isinstance(a[name], h5py.Dataset):
                    np.testing.assert_array_equal(a[name][()], b[name][()])
    elif one.suffix == ".pkl":
        # The module that numpy writes into pickles changed its name between versions.
        for a, b in zip(load_pickle(one), load_pickle(other), strict=True):
            np.testing.assert_array_equal(a, b)
    elif one.suffix == ".npz":
        with np.load(one) as a, np.load(other) as b:
            np.testing.assert_array_equal(a["data"], b["data"])
    else:
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("folder", SAMPLED, ids=lambda f: f.name)
def test_the_script_makes_the_sample(folder, tmp_path):
    spec = importlib.util.spec_from_file_location("make_sample", folder / "make_sample.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make_sample(tmp_path)
    kept = sorted((folder / "sample" / "raw").iterdir())
    assert [path.name for path in kept] == sorted(path.name for path in tmp_path.iterdir())
    for path in kept:
        same(path, tmp_path / path.name)


@pytest.mark.parametrize("folder", SAMPLED, ids=lambda f: f.name)
def test_samples_are_small(folder):
    assert sum(p.stat().st_size for p in (folder / "sample").rglob("*")) < 64_000
