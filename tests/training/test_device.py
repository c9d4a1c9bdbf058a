import pytest
import torch

from pyg_stmamba.training.device import check_devices, describe_device, is_main_process


@pytest.fixture
def machine(monkeypatch):
    def make(gpus: int, cores: int = 4):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr("os.cpu_count", lambda: cores)

    return make


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices"),
    [
        (0, "auto", "auto"),
        (0, "auto", 1),
        (0, "cpu", "4"),
        (2, "auto", 2),
        (2, "gpu", "0,1"),
        (2, "cuda", "1,"),
        (2, "gpu", -1),
    ],
)
def test_what_is_there_passes(machine, gpus, accelerator, devices):
    machine(gpus)
    check_devices(accelerator, devices)


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices", "message"),
    [
        (0, "gpu", "auto", "accelerator='gpu' is not there: this machine has no CUDA GPUs"),
        (0, "mps", 1, "accelerator='mps' is not there"),
        (0, "cpu", 5, "devices=5 on accelerator='cpu' are not there: .* 4 CPU cores"),
        (0, "auto", 2, "give accelerator='cpu' to train in 2 processes"),
        (2, "auto", 3, "devices=3 on accelerator='cuda' are not there: this machine has 2 CUDA"),
        (2, "gpu", "0,2", "devices='0,2' on accelerator='cuda' are not there"),
        (2, "gpu", 0, "devices=0 on accelerator='cuda' are not there"),
        (0, "cpu", "0,1", "devices='0,1' on accelerator='cpu' are not there"),
        (1, "auto", "two", "devices='two' must be 'auto', a number, or a list such as '0,1'"),
        (1, "tpu", 1, "accelerator='tpu' is unknown; choose from 'auto', 'cpu'"),
    ],
)
def test_what_is_not_there_is_refused(machine, gpus, accelerator, devices, message):
    machine(gpus)
    with pytest.raises(ValueError, match=message):
        check_devices(accelerator, devices)


def test_one_process_prints(monkeypatch):
    assert is_main_process()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert is_main_process() == (rank == 0)


def test_devices_have_names():
    assert describe_device(torch.device("cpu")).startswith("cpu (")
    assert "thread" in describe_device(torch.device("cpu"))
    assert describe_device(torch.device("meta")) == "meta"
    assert describe_device(torch.device("meta"), processes=4) == "4 x meta"
