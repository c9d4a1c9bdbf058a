"""Forecasting as measurements arrive, one step at a time.

A graph attention needs no memory and a Mamba remembers the past of a node in a state of constant
size. So a block can follow an endless stream: each new instant costs the same, whether ten or ten
thousand came before, and the outputs are those of one pass over the whole series. The state is a
value: keep it, copy it, or store it, and go on from there later.
"""

import time

import torch

from pyg_stmamba.nn import STMambaBlock


def main(num_nodes: int = 50, num_steps: int = 300, channels: int = 32) -> dict[str, float]:
    torch.manual_seed(0)
    ring = torch.arange(num_nodes)
    edge_index = torch.stack([ring, ring.roll(-1)])  # each node hears the one before it
    series = torch.randn(num_nodes, num_steps, channels)
    block = STMambaBlock(channels, dropout=0.0).eval()

    with torch.inference_mode():
        whole = block(series, edge_index)

        state, outputs, sizes, seconds = None, [], [], []
        for instant in series.unbind(1):  # [N, C], as it would come from the sensors
            begin = time.perf_counter()
            output, state = block.step(instant, edge_index, state=state)
            seconds.append(time.perf_counter() - begin)
            outputs.append(output)
            sizes.append(sum(part.numel() for part in state))
        streamed = torch.stack(outputs, dim=1)

        forgetful, _ = block.step(series[:, -1], edge_index)  # no state: a series begins

        # A state from the middle of the series continues it: chunks of any length, and steps.
        half = num_steps // 2
        first, state = block.prefill(series[:, :half], edge_index)
        second, _ = block.prefill(series[:, half:], edge_index, state=state)
        chunked = torch.cat([first, second], dim=1)

    result = {
        "difference of steps": (streamed - whole).abs().max().item(),
        "difference of chunks": (chunked - whole).abs().max().item(),
        "difference without the state": (forgetful - whole[:, -1]).abs().max().item(),
        "numbers in the state after the first step": sizes[0],
        "numbers in the state after the last step": sizes[-1],
    }
    for name, value in result.items():
        print(f"{name}: {value:.3g}")
    print(f"median time of a step: {1e3 * sorted(seconds)[num_steps // 2]:.2f} ms")
    return result


if __name__ == "__main__":
    main()
