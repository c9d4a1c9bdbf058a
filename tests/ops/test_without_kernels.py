import subprocess
import sys

PROGRAM = """
import sys

import torch


class NoKernels:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("pyg_stmamba.ops.kernels"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NoKernels())

from pyg_stmamba.nn import STMambaBlock
from pyg_stmamba.ops import implementations

block = STMambaBlock(8)
x = torch.randn(4, 6, 8, requires_grad=True)
block(x, torch.tensor([[0, 1, 2], [1, 2, 3]])).sin().sum().backward()
assert x.grad.isfinite().all() and x.grad.any()

lines = [line for line in implementations() if line.name == "numba"]
assert len(lines) == 3
assert all("cannot be imported (No module named" in line.reasons[0] for line in lines), lines
assert not any(name.startswith("pyg_stmamba.ops.kernels") for name in sys.modules)
"""


def test_a_block_trains_without_kernels():
    """In a process of its own, where nothing has found a kernel yet."""
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
