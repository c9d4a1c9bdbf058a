"""Decoding a sequence one step at a time, at the cost of one step.

A decoder attends to all steps before the next one. To decode it, one can run over all of them
again, which costs more with every step; or keep their keys and values, as `forward_one_step` does
in the dictionary that is handed in and out, and run over the new one alone. Both give the same
numbers. What was kept can branch: three scenarios go on from one history, each with another next
value, without decoding that history three times; a beam search does the same at every step.
"""

import time

import torch
from torch import Tensor

from pyg_stmamba import TransformerDecoder, TransformerEncoder
from pyg_stmamba.nn import reorder_incremental_state


def all_again(decoder: TransformerDecoder, first: Tensor, memory: Tensor, steps: int):
    """Each step from a pass over all before it."""
    decoded, seconds = first, []
    for _ in range(steps):
        begin = time.perf_counter()
        value = decoder(decoded, memory)[:, -1:]
        seconds.append(time.perf_counter() - begin)
        decoded = torch.cat([decoded, value], 1)
    return decoded[:, 1:], seconds


def one_by_one(decoder: TransformerDecoder, first: Tensor, memory: Tensor, steps: int):
    """Each step from what was kept of those before it."""
    state, value, decoded, seconds = {}, first, [], []
    for _ in range(steps):
        begin = time.perf_counter()
        value, state = decoder.forward_one_step(value, memory, state)
        seconds.append(time.perf_counter() - begin)
        decoded.append(value)
    return torch.cat(decoded, 1), seconds, state


def scenarios(decoder: TransformerDecoder, state: dict, memory: Tensor, values: Tensor):
    """What follows on one history and each of several next values."""
    index = torch.zeros(len(values), dtype=torch.long)
    return decoder.forward_one_step(
        values.reshape(-1, 1, 1), memory[index], reorder_incremental_state(state, index)
    )[0]


def main(steps: int = 200, d_model: int = 64) -> dict[str, float]:
    torch.manual_seed(0)
    size = {"d_model": d_model, "nhead": 4, "num_layers": 2, "dim_feedforward": 4 * d_model}
    encoder = TransformerEncoder(input_size=1, **size).eval()
    decoder = TransformerDecoder(input_size=1, output_size=1, **size).eval()
    wave = torch.sin(0.3 * torch.arange(24.0)).reshape(1, -1, 1)

    with torch.no_grad():
        memory, first = encoder(wave), wave[:, -1:]
        slow, of_slow = all_again(decoder, first, memory, steps)
        fast, of_fast, state = one_by_one(decoder, first, memory, steps)

        values = torch.tensor([-1.0, 0.0, 1.0])
        branches = scenarios(decoder, state, memory, values)
        history = torch.cat([first, fast[:, :-1]], 1)  # what the state has seen
        whole = [decoder(torch.cat([history, v.reshape(1, 1, 1)], 1), memory) for v in values]

    late = [sorted(seconds[-steps // 4 :])[steps // 8] for seconds in (of_slow, of_fast)]
    result = {
        "difference of both ways": (slow - fast).abs().max().item(),
        "difference of scenarios": max(
            float((branch - y[0, -1:]).abs().max()) for branch, y in zip(branches, whole)
        ),
        "keys kept by a layer": state["layers"][0]["self_attn"]["key"].size(1),
        "a late step, all again [ms]": 1e3 * late[0],
        "a late step, from what was kept [ms]": 1e3 * late[1],
    }
    for name, value in result.items():
        print(f"{name}: {value:.3g}")
    return result


if __name__ == "__main__":
    main()
