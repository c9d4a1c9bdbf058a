import pytest

import pyg_stmamba.datasets as datasets
from pyg_stmamba.datasets import DATASETS, MESH_DATASETS, METRLA, PEMS, open_dataset


def test_opens_by_name(sample):
    assert isinstance(open_dataset("metr-la", sample("metr_la")), METRLA)
    dataset = open_dataset("pems04", str(sample("pems")))
    assert isinstance(dataset, PEMS)
    assert dataset.name == "PEMS04"


def test_passes_arguments_on(sample):
    dataset = open_dataset("metr-la", sample("metr_la"), transform=len)
    assert dataset[0] == len(METRLA(dataset.root)[0])


def test_unknown_names_list_the_choices(tmp_path):
    with pytest.raises(ValueError, match="unknown data set 'metrla'; choose one of metr-la, ") as e:
        open_dataset("metrla", tmp_path)
    assert all(name in str(e.value) for name in DATASETS)


def test_every_class_is_in_the_table():
    made = {
        getattr(maker, "func", maker) for maker in [*DATASETS.values(), *MESH_DATASETS.values()]
    }
    public = [getattr(datasets, name) for name in datasets.__all__]
    assert made == {value for value in public if isinstance(value, type)}
