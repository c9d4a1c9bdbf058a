import copy
import io

import torch

from pyg_stmamba.nn.transformer.growing_buffer import GrowingBuffer


def steps(count: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + count).float().view(1, count, 1).expand(2, count, 3).clone()


def test_room_doubles():
    buffer, seen, rooms = GrowingBuffer(steps(1)), 1, []
    for t in range(1, 200):
        grown = buffer.append(t, steps(1, t))
        if grown is not buffer:
            rooms.append(grown.storage.size(-2))
            seen += t
        buffer = grown
        assert torch.equal(buffer.view(t + 1), steps(t + 1))
    assert rooms == [34, 70, 142, 286]
    assert seen < 2 * 200  # steps copied


def test_several_steps_at_once():
    buffer = GrowingBuffer(steps(3)).append(3, steps(40, 3)).append(43, steps(2, 43))
    assert torch.equal(buffer.view(45), steps(45))
    assert buffer.append(45, steps(0)) is buffer


def test_who_goes_on_from_an_earlier_place_gets_a_copy():
    buffer = GrowingBuffer(steps(3))
    first = buffer.append(3, steps(1, 10))
    early = first.view(4)
    second = buffer.append(3, steps(1, 20))
    assert first is buffer
    assert second is not buffer
    third = buffer.append(2, steps(1, 30))
    assert early[0, :, 0].tolist() == first.view(4)[0, :, 0].tolist() == [0, 1, 2, 10]
    assert second.view(4)[0, :, 0].tolist() == [0, 1, 2, 20]
    assert third.view(3)[0, :, 0].tolist() == [0, 1, 30]


def test_what_it_holds():
    buffer = GrowingBuffer(steps(4))
    first, second = buffer.view(3)
    assert buffer.holds((first, second))
    assert buffer.holds(tuple(buffer.view(4)))
    assert not buffer.holds((first.clone(), second))
    assert not buffer.holds((second, first))
    assert not buffer.holds((first[:, :2], second[:, :2]))
    assert not buffer.holds((first,))
    assert not buffer.holds(tuple(buffer.storage[:, :5]))


def test_the_sequence_given_is_copied():
    given = steps(2)
    buffer = GrowingBuffer(given)
    given.zero_()
    assert torch.equal(buffer.view(2), steps(2))


def test_of_inference_mode():
    with torch.inference_mode():
        buffer = GrowingBuffer(steps(2))
        assert buffer.append(2, steps(1, 2)) is buffer
    outside = buffer.append(3, steps(1, 3))
    assert torch.equal(outside.view(4), steps(4))


def test_copies_and_files():
    buffer = GrowingBuffer(steps(2))
    view, other = copy.deepcopy((buffer.view(2), buffer))
    assert other.holds(tuple(view))
    other.append(2, steps(1, 7))
    assert buffer.length == 2
    file = io.BytesIO()
    torch.save(buffer.view(2), file)
    file.seek(0)
    assert torch.equal(torch.load(file), steps(2))
    assert str(buffer) == "GrowingBuffer(2 of 16 steps)"
