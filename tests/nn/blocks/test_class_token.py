import torch

from pyg_stmamba.nn import SpatialAttention
from pyg_stmamba.nn.blocks.class_token import add_class_token
from tests.laws import close, same

C, SIZES = 4, (3, 1, 4)
BATCH = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
EDGES = torch.tensor([[0, 2, 4, 5, 7], [1, 0, 5, 6, 4]])


def test_one_graph():
    x, cls = torch.randn(5, 2, 3, C), torch.randn(1, 2, 1, C)
    joined = add_class_token(x, cls, torch.tensor([[0, 4], [1, 2]]))
    same(joined.x[0], cls[0].expand(-1, 3, -1))
    same(joined.x[1:], x)
    edges = set(map(tuple, joined.edge_index.t().tolist()))
    assert edges == {(1, 2), (5, 3)} | {(0, i) for i in range(1, 6)} | {(i, 0) for i in range(1, 6)}
    token, nodes = joined.split(joined.x)
    same(nodes, x)
    same(token, cls.expand(-1, -1, 3, -1))


def test_graphs_stay_together():
    x, cls = torch.randn(8, 3, C), torch.randn(4, 1, C)  # the last graph has no node
    joined = add_class_token(x, cls, EDGES, BATCH)
    assert joined.batch.tolist() == [0] * 4 + [1] * 2 + [2] * 5 + [3]
    rows = [cls[0].expand(3, -1)[None], x[:3], cls[1].expand(3, -1)[None], x[3:4]]
    rows += [cls[2].expand(3, -1)[None], x[4:], cls[3].expand(3, -1)[None]]
    same(joined.x, torch.cat(rows))
    token, nodes = joined.split(joined.x)
    same(nodes, x)
    same(token, cls.expand(-1, 3, -1))
    same(joined.x[joined.class_places], token)


def test_edges_reach_the_class_token_of_the_own_graph_only():
    x, cls = torch.randn(8, 3, C), torch.randn(3, 1, C)
    joined = add_class_token(x, cls, EDGES, BATCH)
    source, target = joined.edge_index
    assert (joined.batch[source] == joined.batch[target]).all()
    assert joined.edge_index.size(1) == EDGES.size(1) + 2 * 8
    where = joined.place[3:]
    same(joined.edge_index[:, :5], where[EDGES])


def test_a_token_a_step():
    x, cls = torch.randn(8, 3, C), torch.randn(3, 3, C)
    token, nodes = add_class_token(x, cls, batch=BATCH).split(
        add_class_token(x, cls, None, BATCH).x
    )
    same(nodes, x)
    same(token, cls)


def test_attention_over_joined_graphs_is_that_over_each():
    x, cls = torch.randn(8, 3, C), torch.randn(3, 1, C)
    for neighbors_only in (False, True):
        op = SpatialAttention(C, 2, neighbors_only=neighbors_only)
        joined = add_class_token(x, cls, EDGES, BATCH)
        token, nodes = joined.split(op(joined.x, joined.edge_index, batch=joined.batch))
        for graph in range(3):
            there = graph == BATCH
            inside = EDGES[:, there[EDGES[0]]] - there.nonzero().min()
            alone = add_class_token(x[there], cls[graph : graph + 1], inside)
            mine, theirs = alone.split(op(alone.x, alone.edge_index))
            close(token[graph : graph + 1], mine, 1e-6)
            close(nodes[there], theirs, 1e-6)
