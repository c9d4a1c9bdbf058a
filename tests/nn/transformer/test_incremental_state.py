import torch

from pyg_stmamba.nn.transformer import TransformerDecoder, reorder_incremental_state
from pyg_stmamba.nn.transformer.incremental_state import seen_tokens

S, D = 5, 12


def started(batch):
    model = TransformerDecoder(2, 2, d_model=D, nhead=3, num_layers=2, dim_feedforward=20).eval()
    x, memory = torch.randn(batch, 4, 2), torch.randn(batch, S, D)
    state = {}
    for t in range(3):
        model.forward_one_step(x[:, t : t + 1], memory, state)
    return model, x, memory, state


def test_reordered_beams_go_on_as_if_they_had_been_so_from_the_start():
    model, x, memory, state = started(3)
    index = torch.tensor([2, 2, 0, 1])
    y, _ = model.forward_one_step(
        x[index, 3:], memory[index], reorder_incremental_state(state, index)
    )
    torch.testing.assert_close(y, model(x[index], memory[index])[:, 3:], atol=1e-5, rtol=1e-5)


def test_the_old_state_stays():
    model, x, memory, state = started(3)
    beams = reorder_incremental_state(state, torch.tensor([1, 1]))
    # Both go on; neither overwrites the other, nor one beam the next.
    other = torch.randn(2, 1, 2)
    y, _ = model.forward_one_step(other, memory[[1, 1]], beams)
    assert seen_tokens(beams) == 4
    assert seen_tokens(state) == 3
    z, _ = model.forward_one_step(x[:, 3:], memory, state)
    torch.testing.assert_close(z, model(x, memory)[:, 3:], atol=1e-5, rtol=1e-5)
    whole = torch.cat([x[[1, 1], :3], other], 1)
    torch.testing.assert_close(y, model(whole, memory[[1, 1]])[:, 3:], atol=1e-5, rtol=1e-5)


def test_two_continuations_of_one_state():
    model, _, memory, state = started(3)
    values = torch.randn(2, 3, 2, 2)
    kept = {**state}
    results = []
    for value in values:
        branch = {**kept}
        parts = [model.forward_one_step(value[:, t : t + 1], memory, branch)[0] for t in range(2)]
        results.append((torch.cat(parts, 1), branch))
    for value, (y, branch) in zip(values, results):
        again, _ = model.forward_one_step(value, memory, {**kept})
        torch.testing.assert_close(y, again, atol=1e-5, rtol=1e-5)
        assert seen_tokens(branch) == 5


def test_nothing_to_reorder():
    assert reorder_incremental_state({}, torch.tensor([0])) == {}
    assert seen_tokens({}) == 0
