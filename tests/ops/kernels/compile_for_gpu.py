"""Compiles the Triton kernels for GPUs that are not here: python compile_for_gpu.py FOLDER.

A process of its own, because a process that interprets kernels cannot compile them.
"""

import sys
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pyg_stmamba.ops.kernels import causal_conv1d_gpu, selective_scan_gpu

OPTIONAL = {"z", "initial", "mask", "grad_z", "grad_initial"}
BFLOAT16 = {"u", "delta", "B", "C", "z", "x", "y", "grad_y", "grad_u", "grad_z", "grad_x"}
NUMBERS = {"rows", "rows_each", "steps", "channels", "states", "stride"}

SCAN = {"SOFTPLUS": True, "CHUNK": 16, "BLOCK_C": selective_scan_gpu.CHANNELS}
CONV = {
    "WIDTH": 4,
    "SILU": True,
    "BLOCK_T": causal_conv1d_gpu.STEPS,
    "BLOCK_C": causal_conv1d_gpu.CHANNELS,
}
KERNELS: tuple[tuple[Any, dict[str, Any], int], ...] = (
    (selective_scan_gpu.forward_rows, {**SCAN, "STATES": 16, "BLOCK_N": 16}, 1),
    (selective_scan_gpu.backward_rows, {**SCAN, "BLOCK_T": 16}, 1),
    (causal_conv1d_gpu.forward_tiles, CONV, 4),
    (causal_conv1d_gpu.backward_tiles, {**CONV, "BLOCK_K": 4}, 4),
)


def compile_kernel(
    function: Any, constants: dict[str, Any], warps: int, full: bool, architecture: int
) -> str:
    """Returns the PTX, with all optional inputs or without any."""
    names = function.arg_names
    absent = {} if full else {name: None for name in names if name in OPTIONAL}
    constants = constants | absent

    def type_of(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name in NUMBERS:
            return "i32"
        return "*u8" if name == "mask" else "*bf16" if name in BFLOAT16 else "*fp32"

    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(function, {name: type_of(name) for name in names}, values)
    target = GPUTarget("cuda", architecture, 32)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    made = triton.compile(source, target=target, options=options)
    assert made.asm["cubin"]
    return made.asm["ptx"]


if __name__ == "__main__":
    for kernel, fixed, num_warps in KERNELS:
        for with_all in (True, False):
            for sm in (80, 90):
                ptx = compile_kernel(kernel, fixed, num_warps, with_all, sm)
                name = f"{kernel.__name__}-sm{sm}-{'full' if with_all else 'bare'}.ptx"
                (Path(sys.argv[1]) / name).write_text(ptx)
