"""Three ways to configure one encoder/decoder family, each doing what its options promise.

A time-series encoder that saves memory: blockwise attention, checkpointed layers, gated
feed-forward networks. A decoder whose feed-forward networks are a mixture of experts: eight times
the parameters there at twice the cost, and an auxiliary loss that keeps all experts busy. A decoder
for inference that shares one layer among all depths and decodes from kept keys and values.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba import TransformerDecoder, TransformerEncoder


def size_of(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def operations(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def main(d_model: int = 64, length: int = 96) -> dict[str, float]:
    torch.manual_seed(0)
    series = torch.randn(2, length, 7)
    encoder = TransformerEncoder(
        input_size=7,
        d_model=d_model,
        nhead=8,
        num_layers=6,
        att_type="xformer",  # memory grows with the length, not with its square
        use_swiglu=True,
        norm_strategy="pre_norm",
        use_adaptive_ln="rms",
        use_gradient_checkpointing=True,  # a layer keeps its input alone
    )
    memory = encoder(series)
    memory.square().mean().backward()
    gradients = [parameter.grad for parameter in encoder.parameters()]
    memory = memory.detach()

    shared = {"input_size": 7, "output_size": 7, "d_model": d_model, "nhead": 8, "num_layers": 2}
    dense = TransformerDecoder(**shared, dim_feedforward=4 * d_model)
    experts = TransformerDecoder(
        **shared, dim_feedforward=4 * d_model, use_moe=True, num_experts=8, top_k=2
    )
    experts(series, memory)
    balance = experts.get_aux_loss()  # add it to the loss of the task
    balance.backward()
    cost = [operations(lambda m=model: m(series, memory)) for model in (dense, experts)]

    small = TransformerDecoder(**{**shared, "num_layers": 6}, share_layers=True).eval()
    large = TransformerDecoder(**{**shared, "num_layers": 6})
    state, steps = {}, []
    with torch.no_grad():
        for value in series.split(1, dim=1):
            step, state = small.forward_one_step(value, memory, incremental_state=state)
            steps.append(step)
        whole = small(series, memory)

    result = {
        "finite gradients": float(all(g is not None and g.isfinite().all() for g in gradients)),
        "experts: times the parameters": size_of(experts) / size_of(dense),
        "experts: times the operations": cost[1] / cost[0],
        "experts: auxiliary loss": balance.item(),
        "shared layers: part of the parameters": size_of(small) / size_of(large),
        "shared layers: caches": len(state["layers"]),
        "one by one: difference": (torch.cat(steps, 1) - whole).abs().max().item(),
    }
    for name, value in result.items():
        print(f"{name}: {value:.3g}")
    return result


if __name__ == "__main__":
    main()
