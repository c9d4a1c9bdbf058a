import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_kernel_compiles_for_two_architectures_and_fits_into_registers():
    pytest.importorskip("triton", reason="triton cannot be imported")
    script = Path(__file__).with_name("compile_for_gpu.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    stacks = [int(stack) for stack in re.findall(r"stack (\d+)", done.stdout)]
    assert len(stacks) == 11 * 2 * 2 * 2
    # A register or two, spilled outside the loops, do no harm.
    assert max(stacks) <= 16, done.stdout
