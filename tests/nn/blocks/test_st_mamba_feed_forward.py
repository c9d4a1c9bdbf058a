"""The third phase of a block, on each node and step alone."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from pyg_stmamba.models import STMamba
from pyg_stmamba.nn import STMambaBlock
from pyg_stmamba.nn.transformer.feed_forward_resolver import FEED_FORWARD
from tests.laws import close, same

C, NODES, STEPS = 8, 5, 6
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])


def block(**options) -> STMambaBlock:
    arguments = {"d_state": 4, "num_heads": 2, "dropout": 0.0, "num_experts": 3}
    return STMambaBlock(C, **{**arguments, **options})


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("name", FEED_FORWARD)
def test_is_the_block_and_then_the_network(name, norm):
    whole = block(feed_forward=name, norm=norm).eval()
    two = block(norm=norm).eval()
    two.load_state_dict(whole.state_dict(), strict=False)
    x = torch.randn(NODES, STEPS, C)
    h = two(x, EDGES)
    normed = torch.nn.functional.layer_norm
    if norm == "pre":
        expected = h + whole.feed_forward(normed(h, (C,)))[0]
    else:
        expected = normed(h + whole.feed_forward(h)[0], (C,))
    close(whole(x, EDGES), expected, 1e-5)


@pytest.mark.parametrize("name", ["swiglu", "moe"])
def test_all_forms_of_input(name):
    op = block(feed_forward=name).eval()
    x = torch.randn(2, STEPS, NODES, C)
    y = op(x, EDGES)
    nodes_first = x.permute(2, 0, 1, 3)
    close(op(nodes_first, EDGES, nodes_first=True), y.permute(2, 0, 1, 3), 1e-5)
    graphs = [Data(x=nodes_first[:, i], edge_index=EDGES) for i in range(2)]
    close(op(Batch.from_data_list(graphs)), torch.cat([op(graph) for graph in graphs]), 1e-5)
    close(op(graphs[0]), y[0].transpose(0, 1), 1e-5)


def test_streams():
    op = block(feed_forward="moe", norm="pre").eval()
    x = torch.randn(NODES, STEPS, C)
    state, steps = None, []
    for t in range(STEPS):
        y, state = op.step(x[:, t], EDGES, state=state)
        steps.append(y)
    close(torch.stack(steps, 1), op(x, EDGES), 1e-5)


def test_experts_know_neither_the_future_nor_other_rows():
    """Exactly in gradients; in values up to the rounding of an expert, which depends on how many
    tokens it serves at once."""
    op = block(feed_forward="moe", norm="pre").eval()
    x = torch.randn(NODES, 3, STEPS, C)
    leaf = x.clone().requires_grad_()
    y = op(leaf, EDGES, nodes_first=True)
    y[:, 1, :4].square().sum().backward()
    assert (leaf.grad[:, 1, 4:] == 0).all()
    assert (leaf.grad[:, [0, 2]] == 0).all()
    assert (leaf.grad[:, 1, :4] != 0).any()
    other = torch.randn_like(x)
    other[:, 1, :4] = x[:, 1, :4]
    close(op(other, EDGES, nodes_first=True)[:, 1, :4], y[:, 1, :4], 1e-5)


def test_auxiliary_loss_leaves_unobserved_steps_out():
    op = block(feed_forward="moe", spatial=None, temporal=None)
    with torch.no_grad():
        op.feed_forward.experts.router.weight.mul_(100.0)  # so that tokens are told apart
    assert op.get_aux_loss() == 0
    x = torch.randn(NODES, STEPS, C)
    mask = torch.rand(NODES, STEPS) > 0.4
    y = op(x, mask=mask)
    assert (y[~mask] == 0).all()
    aux_loss = op.get_aux_loss()
    _, expected = op.feed_forward(x[mask].unsqueeze(0))
    torch.testing.assert_close(aux_loss, expected)
    assert aux_loss > 0
    router = [p for name, p in op.named_parameters() if "router" in name]
    aux_loss.backward()
    assert all((parameter.grad != 0).any() for parameter in router)
    junk = x.masked_fill(~mask.unsqueeze(-1), 1e3)
    same(op(junk, mask=mask), y)
    same(op.get_aux_loss(), aux_loss)


def test_modules_of_ones_own():
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    op = block(feed_forward=Doubled(), spatial=None, temporal=None, norm="pre").eval()
    x = torch.randn(NODES, STEPS, C)
    close(op(x), x + 2 * torch.nn.functional.layer_norm(x, (C,)), 1e-5)
    assert op.get_aux_loss() == 0


def test_stack_adds_up_the_losses_of_its_blocks():
    model = STMamba(
        1, 8, num_layers=3, window=4, horizon=2, num_heads=2, feed_forward="moe", num_experts=3
    )
    model(torch.randn(NODES, 4, 1), EDGES)
    losses = [part.get_aux_loss() for part in model.blocks]
    assert all(loss > 0 for loss in losses)
    torch.testing.assert_close(model.get_aux_loss(), sum(losses))
    model.eval()
    model(torch.randn(NODES, 4, 1), EDGES)
    assert model.get_aux_loss() == 0
    assert STMamba(1, 8, num_layers=0, window=4).get_aux_loss() == 0


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown feed-forward network 'mlp'"):
        block(feed_forward="mlp")
