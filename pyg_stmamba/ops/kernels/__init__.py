r"""Sources of the Numba (CPU) and Triton (GPU) kernels; only the op that owns one uses it."""
