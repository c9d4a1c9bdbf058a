"""Attention in space, in time, and in both at once, on a video small enough to read.

Four frames of two by two patches, and a patch is its color, three channels: a red spot on blue
ground that moves on by one patch from frame to frame.

    frame 1   R b    frame 2   b R    frame 3   b b    frame 4   b b
              b b              b b              b R              R b

With the queries and keys set by hand to multiples of the colors, a token gives nine times as much
attention to a token of its own color as to one of the other. So all maps follow from counting:

* space: in its frame the spot gives itself 9 / (9 + 3) = 0.75 of its attention. No frame sees
  another, so that the order of the frames is no matter.
* space and time at once: the spot gives each of the four spots, wherever they have moved to,
  9 / (4 * 9 + 12 * 1) = 0.1875. This is what finds motion, and it takes a map of 16 x 16, where
  space and time apart take 4 maps of 4 x 4 and 4 more.
* time after space: a patch sees its own past and future alone, hence one spot in four frames, of
  which the attention over space has left 75 % red.

Which axis is attended over is not seen in the shape of the output. ``nn.MultiheadAttention`` takes
``[B, N, D]`` for N sequences of length B unless it is told ``batch_first=True``; without it the
videos of a batch attend to each other, and no patch to another. Where the other video turns red, a
blue patch then gives it 1 / (1 + 9) = 0.1 of its attention.
"""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from pyg_stmamba import JointSpaceTimeTransformer, MiniSpaceTimeTransformer
from pyg_stmamba.visualization import plot_attention_maps, style

RED, BLUE = torch.eye(3)[0], torch.eye(3)[2]
PATH = [0, 1, 3, 2]  # where the spot is, frame by frame
PREFERENCE = 9.0  # for the own color


def video() -> Tensor:
    """The tokens [1, T, N, D]."""
    x = BLUE.repeat(4, 4, 1)
    x[torch.arange(4), PATH] = RED
    return x.unsqueeze(0)


@torch.no_grad()
def compare_colors(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, biases: list[Tensor]
) -> None:
    """Sets the weights of an attention: exp(q . k / sqrt(3)) is 9 for equal colors, else 1."""
    scale = math.sqrt(math.log(PREFERENCE) * math.sqrt(3))
    for weight, factor in ((query, scale), (key, scale), (value, 1.0), (out, 1.0)):
        weight.copy_(factor * torch.eye(3))
    for bias in biases:
        bias.zero_()


def divided_model() -> MiniSpaceTimeTransformer:
    model = MiniSpaceTimeTransformer(dim=3, num_heads=1)
    for attention in (model.spatial, model.temporal):
        parts = attention.in_proj_weight.chunk(3)
        biases = [attention.in_proj_bias, attention.out_proj.bias]
        compare_colors(*parts, attention.out_proj.weight, biases)
    return model


def joint_model() -> JointSpaceTimeTransformer:
    model = JointSpaceTimeTransformer(dim=3, num_heads=1)
    heads = model.layers[0].attention.heads
    parts = [heads.query_projection, heads.key_projection]
    parts += [heads.value_projection, heads.out_projection]
    compare_colors(*(part.weight for part in parts), [part.bias for part in parts])
    return model


@torch.no_grad()
def influence_of_another_video(batch_first: bool) -> float:
    """How far a frame moves when the other video in its batch turns red."""
    attention = divided_model().spatial
    attention.batch_first = batch_first
    frame, red = video()[:, 0], RED.expand(1, 4, 3)
    moved = [attention(x, x, x)[0][0] for x in (torch.cat([frame, o]) for o in (frame, red))]
    return (moved[1] - moved[0]).abs().max().item()


def main(picture: str | Path = "runs/space_time_attention.png") -> dict[str, float]:
    x = video()
    with torch.no_grad():
        y, (spatial, temporal) = divided_model()(x, return_attention=True)
        _, (joint,) = joint_model()(x, return_attention=True)
    assert y.shape == x.shape

    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure = plot_attention_maps(spatial[0].numpy(), temporal[0].numpy(), joint[0].numpy())
    Path(picture).write_bytes(style.png(figure))

    spots = 4 * torch.arange(4) + torch.tensor(PATH)  # among the tokens of all frames
    result = {
        "spot to itself, space": spatial[0, 0, PATH[0], PATH[0]].item(),
        "spot to itself, time after space": temporal[0, PATH[0], 0, 0].item(),
        "spot to each spot, at once": joint[0, spots[0], spots].mean().item(),
        "weights apart": float(spatial.numel() + temporal.numel()),
        "weights at once": float(joint.numel()),
        "influence of another video": influence_of_another_video(batch_first=True),
        "the same without batch_first": influence_of_another_video(batch_first=False),
    }
    for name, value in result.items():
        print(f"{name}: {value:.4g}")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
