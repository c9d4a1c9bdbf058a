import os

import numpy as np
import pytest

from pyg_stmamba.datasets import CylinderFlow
from pyg_stmamba.datasets.cylinder_flow import _one_thread_each
from pyg_stmamba.simulation.cylinder_flow import random_cylinder_flow, simulate_cylinder_flow

SMALL = {"num_nodes": 550, "num_frames": 3, "start": "rest", "progress": False, "processes": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cylinder_flow")


@pytest.fixture(scope="module")
def flows(root):
    return CylinderFlow(root, "train", 2, seed=3, **SMALL)


def test_a_simulation_is_that_of_its_seed_split_and_number(flows):
    arguments = random_cylinder_flow(np.random.default_rng([3, 0, 1]))
    arguments |= {"start": "rest", "num_nodes": 550, "num_frames": 3}
    expected = simulate_cylinder_flow(**arguments)
    found = flows[1]
    assert len(flows) == 2
    assert found.name == "train_0001"
    assert found.parameters == pytest.approx(expected.parameters)
    assert found.num_nodes != flows[0].num_nodes or found.parameters != flows[0].parameters
    np.testing.assert_array_equal(found.frames("velocity"), expected.frames("velocity"))
    np.testing.assert_array_equal(found.series["drag"], expected.series["drag"])
    assert [each.name for each in flows[:]] == ["train_0000", "train_0001"]
    assert flows[-1].name == "train_0001"
    with pytest.raises(IndexError, match="simulation 2 of 2"):
        flows[2]


def test_finished_simulations_are_kept(root, flows, monkeypatch, capsys):
    def no_more(*arguments):
        assert list(arguments[1]) == []
        return iter(())

    monkeypatch.setattr("pyg_stmamba.datasets.cylinder_flow.in_processes", no_more)
    again = CylinderFlow(root, "train", 2, seed=3, **SMALL | {"progress": True})
    np.testing.assert_array_equal(again[0].frames("pressure"), flows[0].frames("pressure"))
    assert capsys.readouterr().err == ""


def test_a_killed_run_goes_on_where_it_was(root, flows, monkeypatch):
    done = []

    def one_dies(work, jobs, processes):
        done.append([path.name for path, *_ in jobs])
        for number, (path, seed, options) in enumerate(jobs):
            if number == 1:
                yield number, -9
            else:
                work(path, seed, options)
                yield number, 0

    monkeypatch.setattr("pyg_stmamba.datasets.cylinder_flow.in_processes", one_dies)
    with pytest.raises(
        ChildProcessError, match=r"1 of 3 simulations failed.*train 3; those that are"
    ):
        CylinderFlow(root, "train", 5, seed=3, **SMALL)
    with pytest.raises(ChildProcessError, match="1 of 2 simulations failed"):
        CylinderFlow(root, "train", 6, seed=3, **SMALL)
    assert done == [
        ["train_0002.npz", "train_0003.npz", "train_0004.npz"],
        ["train_0003.npz", "train_0005.npz"],
    ]


def test_a_transform_is_applied_at_each_access(root, flows):
    part = CylinderFlow(root, "train", 2, seed=3, **SMALL, transform=lambda t: t.between(1, 3))
    assert part[0].num_frames == 2


def test_processes_use_one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with _one_thread_each():
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "4"
    monkeypatch.delenv("OMP_NUM_THREADS")
    with _one_thread_each():
        pass
    assert "OMP_NUM_THREADS" not in os.environ


def test_each_option_reaches_the_simulation_and_the_folder(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pyg_stmamba.datasets.cylinder_flow.in_processes",
        lambda work, jobs, processes: asked.append((list(jobs), processes)) or (),
    )
    options = {"num_nodes": 700, "num_frames": 5, "frame_step": 0.02, "substeps": 3}
    flows = CylinderFlow(tmp_path, "val", **options, seed=4, processes=3, progress=False)
    ((jobs, processes),) = asked
    assert jobs == [(flows.path(number), [4, 1, number], options) for number in range(4)]
    assert processes == 3
    assert [len(CylinderFlow(tmp_path, split, progress=False)) for split in ("train", "test")] == [
        20,
        6,
    ]
    folders = {flows.folder}
    for change in ({"num_nodes": 701}, {"num_frames": 6}, {"frame_step": 0.03}, {"substeps": 4}):
        folders.add(CylinderFlow(tmp_path, **options | change, seed=4, progress=False).folder)
    for change in ({"seed": 5}, {"start": "rest"}, {"start": "developed"}):
        options |= {"seed": 4} | change
        folders.add(CylinderFlow(tmp_path, **options, progress=False).folder)
    assert len(folders) == 8
    assert asked[-1][0][0][2]["start"] == "developed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, "unknown split 'valid'; choose from train, val, test"),
        ({"start": "still"}, "unknown start 'still'; choose from rest, developed, or None"),
        ({"num_simulations": 0}, "num_simulations must be at least 1, got 0"),
        ({"num_nodes": 549}, "num_nodes must be at least 550.*got 549"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
    ],
)
def test_senseless_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        CylinderFlow(tmp_path, **options)
