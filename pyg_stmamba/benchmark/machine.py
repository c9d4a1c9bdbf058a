r"""What a measurement ran on."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from pyg_stmamba.ops import implementations

PACKAGES = (
    "torch",
    "torch-geometric",
    "numpy",
    "numba",
    "triton",
    "lightning",
    "mambapy",
    "transformers",
    "torch-scatter",
    "mamba-ssm",
    "causal-conv1d",
)


def describe_machine(device: torch.device, commit: str | None = None) -> str:
    r"""Returns Markdown lines that name hardware, threads, versions and commit.

    Args:
        device (torch.device): Where it was measured.
        commit (str, optional): The commit, where the machine cannot tell. (default: :obj:`None`)
    """
    from pyg_stmamba import __version__

    threads = torch.get_num_threads()
    hardware = f"{_processor()}, {threads} thread{'' if threads == 1 else 's'}"
    if device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda}); {hardware}"
    versions = [f"python {platform.python_version()}", f"pyg-stmamba {__version__}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    facts = {
        "hardware": hardware,
        "versions": ", ".join(versions),
        "commit": commit or checked_out_commit() or "unknown",
        "ours": ", ".join(f"{op} by {name}" for op, name in _chosen(device).items()),
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def checked_out_commit() -> str | None:
    r"""Returns the commit of the checkout that this package lies in, marked where files differ
    from it, or :obj:`None` if it lies in none."""
    root = Path(__file__).parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed package may lie inside the checkout of something else.
    if top is None or Path(top).resolve() != root.resolve():
        return None
    return _git(root, "describe", "--always", "--dirty", "--exclude=*")


def _chosen(device: torch.device) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for line in implementations():
        if line.available and line.device == device.type:
            chosen.setdefault(line.op, line.name)
    return chosen


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
