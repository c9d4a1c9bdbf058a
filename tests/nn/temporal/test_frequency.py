import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_stmamba.nn import STMambaBlock
from pyg_stmamba.nn.temporal.frequency import TemporalFrequency
from pyg_stmamba.nn.transformer.frequency_attention import FrequencyAttention
from tests import laws
from tests.laws import close, same

C, STEPS = 8, 9
OPERATORS = {
    "tanh": lambda: TemporalFrequency(C, heads=2),
    "softmax": lambda: TemporalFrequency(C, heads=2, activation="softmax"),
    "few random modes": lambda: TemporalFrequency(C, heads=1, modes=3, mode_select="random"),
    "block": lambda: TemporalFrequency(C, heads=2, variant="feb"),
    "block, few random modes": lambda: TemporalFrequency(
        C, modes=3, mode_select="random", variant="feb"
    ),
}


@pytest.fixture(params=OPERATORS)
def op(request):
    op = OPERATORS[request.param]()
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return op


def test_is_not_causal(op):
    x = torch.randn(3, STEPS, C)
    assert not op.causal
    laws.a_stream_needs_causality(op, x)
    laws.the_past_moves_the_present(op, x)
    laws.the_past_moves_the_present(lambda x: op(x.flip(-2)).flip(-2), x)


def test_rows(op):
    laws.rows_are_independent(op, torch.randn(5, STEPS, C))
    laws.rows_are_independent(op, torch.randn(2, 3, STEPS, C), dim=1)


def test_masks(op):
    x = torch.randn(3, 2, STEPS, C)
    laws.masked_steps_have_no_influence(op, x, laws.random_mask(x))
    laws.fully_masked_rows_give_zero(op, x)


def test_modules(op):
    x = torch.randn(3, 2, STEPS, C)
    laws.copies_are_equal(op, lambda op: op(x))
    laws.inputs_stay_untouched(op, x, laws.random_mask(x))
    laws.layout_does_not_matter(op, x)


def test_is_frequency_attention_to_itself(op):
    options = op.attention
    other = FrequencyAttention(
        C,
        options.n_heads,
        options.block.modes.modes,
        options.block.modes.mode_select,
        options.activation,
        options.variant,
    )
    other.load_state_dict(op.attention.state_dict())
    x = torch.randn(3, 2, STEPS, C)
    mask = laws.random_mask(x)
    same(op(x), other(x))
    same(op(x, mask), other(x, key_padding_mask=~mask))


def test_inside_a_block(op):
    block = STMambaBlock(C, num_heads=2, temporal=op, dropout=0.0)
    assert not block.causal
    graphs = []
    for num_nodes in (5, 3):
        ring = torch.arange(num_nodes)
        x = torch.randn(num_nodes, STEPS, C)
        x_mask = torch.rand(num_nodes, STEPS) > 0.2
        graphs.append(Data(x=x, x_mask=x_mask, edge_index=torch.stack([ring, ring.roll(1)])))
    one_by_one = torch.cat([block(graph) for graph in graphs])
    close(block(Batch.from_data_list(graphs)), one_by_one, 1e-6)
    assert one_by_one.shape == (8, STEPS, C)
    assert (one_by_one[~torch.cat([graph.x_mask for graph in graphs])] == 0).all()

    x, edge_index = torch.randn(2, STEPS, 5, C), graphs[0].edge_index
    y = block(x, edge_index)
    for b in range(2):
        close(y[b : b + 1], block(x[b : b + 1], edge_index), 1e-6)
    close(y.movedim(2, 0), block(x.movedim(2, 0), edge_index, nodes_first=True), 1e-6)
    with pytest.raises(ValueError, match="not causal"):
        block.step(x[0, 0], edge_index)


def test_default_options_in_a_block():
    x = torch.randn(3, 12, 64)
    edge_index = torch.tensor([[0, 1], [1, 2]])
    block = STMambaBlock(64, temporal=TemporalFrequency(64))
    block(x, edge_index).sum().backward()
    assert block.temporal.attention.block.weight.grad.abs().max() > 0


def test_dropout_in_training_only():
    op, x = TemporalFrequency(C, dropout=0.5), torch.randn(2, STEPS, C)
    assert not torch.equal(op(x), op(x))
    op.eval()
    same(op(x), op(x))


def test_no_nodes(op):
    assert op(torch.zeros(0, STEPS, C)).shape == (0, STEPS, C)


def test_bad_options():
    with pytest.raises(ValueError, match=r"channels \(8\).*heads \(3\)"):
        TemporalFrequency(8, 3)
    with pytest.raises(ValueError, match=r"C = 8.*\[3, 9, 7\]"):
        TemporalFrequency(8)(torch.randn(3, 9, 7))
    with pytest.raises(ValueError, match="boolean"):
        TemporalFrequency(8)(torch.randn(3, 9, 8), torch.ones(3, 9))


def test_reset():
    op = TemporalFrequency(C)
    before = op.attention.block.weight.clone()
    op.reset_parameters()
    assert not torch.equal(op.attention.block.weight, before)


def test_repr():
    expected = "TemporalFrequency(8, heads=4, modes=32, mode_select='low', variant='fea')"
    assert str(TemporalFrequency(8)) == expected
