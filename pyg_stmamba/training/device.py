from __future__ import annotations

import os
import platform

import torch

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def check_devices(accelerator: str, devices: str | int) -> None:
    r"""Raises :class:`ValueError` where an accelerator is unknown or devices are not there.

    Args:
        accelerator (str): :obj:`"auto"`, :obj:`"cpu"`, :obj:`"gpu"`, :obj:`"cuda"` or
            :obj:`"mps"`.
        devices (str or int): :obj:`"auto"`, how many, or which, as in :obj:`"0,1"`.
    """
    if accelerator not in ACCELERATORS:
        choices = ", ".join(repr(name) for name in ACCELERATORS)
        raise ValueError(f"accelerator={accelerator!r} is unknown; choose from {choices}")
    there = {
        "cpu": os.cpu_count() or 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    kind = accelerator
    if kind == "gpu":
        kind = "cuda" if there["cuda"] or not there["mps"] else "mps"
    elif kind == "auto":
        kind = next(name for name in ("cuda", "mps", "cpu") if there[name])
    gpus, cores = _count(there["cuda"], "CUDA GPU"), _count(there["cpu"], "CPU core")
    found = f"this machine has {gpus} and {cores}"
    if not there[kind]:
        raise ValueError(f"accelerator={accelerator!r} is not there: {found}")
    if devices == "auto":
        return
    wanted = str(devices)
    is_list = "," in wanted
    try:
        # Lightning reads "1," as the one device number 1.
        numbers = [int(number) for number in wanted.removesuffix(",").split(",")]
    except ValueError:
        raise ValueError(
            f"devices={devices!r} must be 'auto', a number, or a list such as '0,1'"
        ) from None
    if numbers == [-1] and kind != "cpu":
        return
    fits = all(0 <= n < there[kind] for n in numbers) if is_list else 1 <= numbers[0] <= there[kind]
    if not fits or (kind == "cpu" and is_list):
        raise ValueError(f"devices={devices!r} on accelerator={kind!r} are not there: {found}")
    if kind == "cpu" and accelerator == "auto" and numbers[0] > 1:
        raise ValueError(
            f"devices={devices!r} are not there: {found}; "
            f"give accelerator='cpu' to train in {numbers[0]} processes"
        )


def is_main_process() -> bool:
    r"""Returns whether this is the one process, or the first of several, that may print."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return True
    return distributed.get_rank() == 0


def describe_device(device: torch.device, processes: int = 1) -> str:
    r"""Returns the name of a device as a person would say it.

    Args:
        device (torch.device): The device.
        processes (int, optional): How many train together, each on such a device.
            (default: :obj:`1`)
    """
    name = device.type
    if device.type == "cuda":
        name = f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        processor = platform.processor() or platform.machine()
        name = f"cpu ({processor}, {_count(torch.get_num_threads(), 'thread')})"
    return name if processes == 1 else f"{processes} x {name}"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
