"""Compiles the Triton kernels for GPUs that are not here and prints what each takes:
python compile_for_gpu.py.

A process of its own, because a process that interprets kernels cannot compile them.
"""

import itertools
import re
import subprocess
import sys
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pyg_stmamba.ops.kernels import causal_conv1d_gpu, graph_attention_gpu, selective_scan_gpu

OPTIONAL = {"z", "initial", "mask", "grad_last", "grad_z", "grad_initial"}
OPTIONAL |= {"edge_logit", "keep", "attention", "grad_attention", "grad_edge"}
SHORT = {"u", "delta", "B", "C", "z", "x", "y", "value", "out", "attention"}
SHORT |= {"source_logit", "target_logit", "edge_logit", "grad_source", "grad_target"}
SHORT |= {f"grad_{name}" for name in ("u", "delta", "z", "x", "y", "value", "out", "attention")}
NUMBERS = {"rows", "rows_each", "steps", "channels", "stride", "nodes", "slices", "edges"}
POINTERS = {"mask": "*u8", "keep": "*u8"}
POINTERS |= dict.fromkeys(("rowptr", "source", "target", "permutation"), "*i64")

SCAN = {
    "channels": 128,
    "SOFTPLUS": True,
    "CHUNK": 16,
    "BLOCK_C": selective_scan_gpu.CHANNELS,
}
CONV = {
    "SILU": True,
    "BLOCK_T": causal_conv1d_gpu.STEPS,
    "BLOCK_C": causal_conv1d_gpu.CHANNELS,
}
ATTENTION = {
    "heads": 4,
    "channels": 16,
    "PER_SLICE": False,
    "BLOCK_S": 16,
    "BLOCK_H": 4,
    "BLOCK_C": 16,
}
BY_SLICE_AND_WIDE = {
    "heads": 3,
    "channels": 65,
    "PER_SLICE": True,
    "BLOCK_S": 2,
    "BLOCK_H": 4,
    "BLOCK_C": 128,
}
KERNELS: tuple[tuple[Any, dict[str, Any], int], ...] = (
    (selective_scan_gpu.forward_rows, {**SCAN, "states": 16, "BLOCK_N": 16}, 1),
    (selective_scan_gpu.forward_rows, {**SCAN, "states": 64, "BLOCK_N": 64}, 4),
    (selective_scan_gpu.backward_rows, {**SCAN, "states": 16, "BLOCK_T": 16}, 1),
    (causal_conv1d_gpu.forward_tiles, {**CONV, "WIDTH": 4}, 4),
    (causal_conv1d_gpu.backward_tiles, {**CONV, "WIDTH": 4, "BLOCK_K": 4}, 8),
    *(
        (kernel, sizes, 4)
        for kernel in (
            graph_attention_gpu.forward_targets,
            graph_attention_gpu.backward_targets,
            graph_attention_gpu.backward_sources,
        )
        for sizes in (ATTENTION, BY_SLICE_AND_WIDE)
    ),
)


def compile_kernel(
    function: Any, constants: dict[str, Any], warps: int, full: bool, short: bool, capability: int
) -> str:
    """Returns the registers and the bytes of stack (spilled registers) of a thread, with all
    optional inputs or without any, with tensors in bfloat16 or in float32."""
    names = function.arg_names
    absent = {} if full else {name: None for name in names if name in OPTIONAL}
    constants = constants | absent

    def type_of(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name in NUMBERS:
            return "i32"
        if name in ("slope", "scale"):
            return "fp32"
        return POINTERS.get(name, "*bf16" if short and name in SHORT else "*fp32")

    types = {name: type_of(name) for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = [name for name in names if types[name].startswith("*")]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    made = triton.compile(
        ASTSource(function, types, values, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "enable_fp_fusion": True},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    return f"registers {found[1]} stack {found[2]}"


if __name__ == "__main__":
    for kernel, fixed, num_warps in KERNELS:
        for with_all, in_bfloat16, sm in itertools.product((True, False), (True, False), (80, 90)):
            taken = compile_kernel(kernel, fixed, num_warps, with_all, in_bfloat16, sm)
            name = f"{kernel.__name__} {'full' if with_all else 'bare'}"
            dtype = "bf16" if in_bfloat16 else "fp32"
            sys.stdout.write(f"{name} {dtype} sm_{sm} {taken}\n")
