import pytest
import torch

from pyg_stmamba.training.hiding import Hiding

NOTHING = Hiding(borrowed=0, points=0, blocks=0, silent=0, outage=0)


def drawn(hiding, shape=(5, 400, 20, 2), seed=0, donor=None, mask=None):
    mask = torch.ones(shape, dtype=torch.bool) if mask is None else mask
    donor = torch.ones_like(mask) if donor is None else donor
    return hiding.draw(mask, donor, torch.Generator().manual_seed(seed))


def runs(line):
    """Where the stretches of a line of booleans begin and end."""
    edges = torch.diff(line.long(), prepend=torch.zeros(1), append=torch.zeros(1))
    return list(zip((edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()))


def test_only_observed_entries_are_hidden_and_the_seed_decides_which():
    mask = torch.rand(5, 40, 20, 1) < 0.7
    donor = torch.rand(5, 40, 20, 1) < 0.7
    first, again, other = (drawn(Hiding(), mask=mask, donor=donor, seed=s) for s in (1, 1, 2))
    assert not (first & ~mask).any()
    assert first.any()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_is_hidden_where_all_chances_are_zero():
    assert not drawn(NOTHING).any()


def test_the_random_state_outside_does_not_matter():
    state = torch.get_rng_state()
    drawn(Hiding())
    assert torch.equal(torch.get_rng_state(), state)


def test_borrowed_gaps_are_those_of_the_donor():
    donor = torch.rand(5, 400, 20, 2) < 0.5
    mask = torch.rand(5, 400, 20, 2) < 0.5
    assert torch.equal(drawn(NOTHING._replace(borrowed=1), mask=mask, donor=donor), mask & ~donor)
    hidden = drawn(NOTHING._replace(borrowed=0.3), donor=donor)
    borrows = hidden.transpose(0, 1).flatten(1).any(1)
    assert borrows.float().mean().item() == pytest.approx(0.3, abs=0.1)
    assert torch.equal(hidden, ~donor & borrows[:, None, None])


def test_points_are_single_and_their_share_differs_from_window_to_window():
    hidden = drawn(NOTHING._replace(points=0.4), (10, 400, 20, 2))
    shares = hidden.float().mean((0, 2, 3))
    # The share of a window is uniform on [0, 0.4].
    assert shares.mean().item() == pytest.approx(0.2, abs=0.02)
    assert shares.std().item() == pytest.approx(0.4 / 12**0.5, rel=0.1)
    assert (hidden[..., 0] != hidden[..., 1]).any()


@pytest.mark.parametrize("kind", ["blocks", "outage"])
def test_a_stretch_is_whole_no_longer_than_asked_for_and_of_all_channels(kind):
    hidden = drawn(NOTHING._replace(longest=6, **{kind: 1}))
    assert torch.equal(hidden[..., 0], hidden[..., 1])
    lengths = torch.zeros(7)
    for line in hidden[..., 0].flatten(0, 1):
        ((first, last),) = runs(line)
        lengths[last - first] += 1
    assert (lengths[1:] > 0).all()
    assert lengths.sum() == 5 * 400


def test_every_step_is_hidden_as_often_as_the_others():
    hidden = drawn(NOTHING._replace(blocks=1, longest=6), (10, 2000, 12, 1))
    shares = hidden.float().mean((0, 1, 3))
    # Of 20000 stretches each step is in about a quarter.
    assert (shares - shares.mean()).abs().max().item() < 0.015


def test_blocks_differ_between_nodes_and_an_outage_does_not():
    blocks = drawn(NOTHING._replace(blocks=1))
    outage = drawn(NOTHING._replace(outage=1))
    assert (blocks[0] != blocks[1]).any()
    assert torch.equal(outage, outage[:1].expand_as(outage))
    assert (outage[0, 0] != outage[0, 1]).any()


@pytest.mark.parametrize(("kind", "dims"), [("blocks", (2, 3)), ("silent", (2, 3))])
def test_nodes_are_hit_with_the_given_probability(kind, dims):
    hidden = drawn(NOTHING._replace(**{kind: 0.3}))
    assert hidden.any(dims[1]).any(dims[0]).float().mean().item() == pytest.approx(0.3, abs=0.04)
    if kind == "silent":
        assert torch.equal(hidden.all(3).all(2), hidden.any(3).any(2))


def test_windows_are_hit_by_outages_with_the_given_probability():
    hidden = drawn(NOTHING._replace(outage=0.3))
    assert hidden[0, :, :, 0].any(1).float().mean().item() == pytest.approx(0.3, abs=0.07)


def test_a_stretch_longer_than_the_window_is_cut():
    assert drawn(NOTHING._replace(outage=1, longest=100), (2, 30, 4, 1)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"points": 1.5}, r"points=1\.5 must lie in \[0, 1\]"), ({"longest": 0}, "longest=0")],
)
def test_options_without_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Hiding(**change).check()
