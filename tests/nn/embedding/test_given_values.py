import pytest
import torch

from pyg_stmamba.nn.embedding.given_values import given_and_padding
from tests.laws import inputs_stay_untouched, same

NAN = float("nan")
NULL, PAD = -1.0, -9.0

# One row for each kind of entry: value, observed, given, padding.
KINDS = [
    (0.5, True, True, False),
    (0.0, True, True, False),
    (NAN, True, False, False),
    (NULL, True, False, False),
    (PAD, True, False, True),
    (0.5, False, False, False),
    (NAN, False, False, False),
    (NULL, False, False, False),
    (PAD, False, False, True),
]
STEPS = 4


def table():
    return [torch.tensor(column).expand(1, STEPS, -1) for column in zip(*KINDS)]


@pytest.mark.parametrize("start_len", [None, 0, 1, 3, 4, 9])
def test_every_kind_of_entry(start_len):
    y, observed, expected_given, expected_padding = table()
    known = torch.arange(STEPS)[:, None] < (9 if start_len is None else start_len)
    given, padding = given_and_padding(
        y, observed, null_value=NULL, pad_value=PAD, start_len=start_len
    )
    same(given, expected_given & known)
    same(padding, expected_padding & known)


def test_without_a_mask_all_is_observed():
    y, _, _, expected_padding = table()
    given, padding = given_and_padding(y, null_value=NULL, pad_value=PAD)
    same(given, (y == 0.5) | (y == 0.0))
    same(padding, expected_padding)


def test_without_special_values_only_nan_is_missing():
    y, observed, _, _ = table()
    for mask, expected in ((None, ~y.isnan()), (observed, observed & ~y.isnan())):
        given, padding = given_and_padding(y, mask)
        same(given, expected)
        assert padding is None


def test_nan_may_stand_for_null_or_padding():
    y = torch.tensor([[[1.0, NAN, 0.0]]])
    given, padding = given_and_padding(y, null_value=NAN)
    assert given.tolist() == [[[True, False, True]]]
    assert padding is None
    given, padding = given_and_padding(y, pad_value=NAN)
    assert given.tolist() == [[[True, False, True]]]
    assert padding.tolist() == [[[False, True, False]]]


@pytest.mark.parametrize("start_len", [None, 2])
def test_a_padding_mask_takes_the_place_of_the_value(start_len):
    y, _, _, _ = table()
    mask = torch.rand(y.shape) < 0.5
    known = torch.arange(STEPS)[:, None] < (9 if start_len is None else start_len)
    given, padding = given_and_padding(y, None, mask, pad_value=PAD, start_len=start_len)
    same(given, ~y.isnan() & ~mask & known)
    same(padding, mask & known)


def test_inputs_stay_untouched():
    y, observed, _, padding = table()
    inputs_stay_untouched(
        lambda *given: given_and_padding(*given, NULL, PAD, 2)[0], y, observed, padding
    )


def test_bad_inputs():
    y = torch.randn(1, STEPS, 2)
    for bad in (torch.ones(1, STEPS, 2), torch.ones(1, STEPS, 1, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"observed_mask must be boolean of shape \[1, 4, 2\]"):
            given_and_padding(y, bad)
        with pytest.raises(ValueError, match=r"padding_mask must be boolean of shape \[1, 4, 2\]"):
            given_and_padding(y, None, bad)
    with pytest.raises(ValueError, match="start_len must not be negative, got -1"):
        given_and_padding(y, start_len=-1)
