"""Videos that only the order of their frames tells apart.

A blob moves along a corridor to the right or to the left, and a model has to say which. Every video
of one class, played backwards, is a video of the other, and just as frequent. Known beforehand:

* whoever sees the frames without their order, as attention within frames does, gives a video and
  the same video backwards the same answer, and is right in one of two: 50 %, whatever it learns,
* whoever sees their order can know: 100 %.

So attention has to reach over time, and the frames must know theirs. Divided attention
(TimeSformer), joint attention and a factorized encoder (ViViT) solve it; the table shows what each
costs. Patches are as high as the corridor: where in it the blob moves does not matter.
"""

import time
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stmamba import SpaceTimeTransformer

STEPS, PLACES, LANES = 4, 6, 3
PIXELS = 2  # height and width of the blob
CLASSES = ("right", "left")
MODELS = {
    "space only, class token": {"attention_type": "space_only", "pool": "cls"},
    "space only, mean": {"attention_type": "space_only", "pool": "mean"},
    "divided": {"attention_type": "divided"},
    "joint": {"attention_type": "joint"},
    "factorized encoder": {"attention_type": "factorized_encoder"},
}


def videos(number: int, generator: torch.Generator, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    """Videos [B, T, 1, H, W] and the class of each [B]."""
    lane, start, label = (
        torch.randint(high, (number, 1), generator=generator)
        for high in (LANES, PLACES - STEPS + 1, len(CLASSES))
    )
    steps = torch.arange(STEPS)
    place = start + torch.where(label == 0, steps, STEPS - 1 - steps)  # B T
    video = torch.zeros(number, STEPS, 1, LANES, PLACES)
    video[torch.arange(number)[:, None], steps, 0, lane, place] = 1.0
    video = video.repeat_interleave(PIXELS, -2).repeat_interleave(PIXELS, -1)
    return video + noise * torch.randn(video.shape, generator=generator), label.squeeze(1)


def trained(num_batches: int, generator: torch.Generator, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = SpaceTimeTransformer(
        dim=32,
        num_layers=2,
        patch_size=(LANES * PIXELS, PIXELS),
        image_size=(LANES * PIXELS, PLACES * PIXELS),
        num_frames=STEPS,
        num_classes=len(CLASSES),
        **options,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, num_batches)
    for _ in range(num_batches):
        x, label = videos(64, generator)
        loss = nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main(num_batches: int = 200) -> dict[str, float]:
    result = {}
    print(f"{'attention':24}{'accuracy':>10}{'backwards':>11}{'ms a batch':>12}{'parameters':>12}")
    for name, options in MODELS.items():
        generator = torch.Generator().manual_seed(0)
        began = time.perf_counter()
        model = trained(num_batches, generator, **options)
        spent = (time.perf_counter() - began) / num_batches
        x, label = videos(2000, generator)
        with torch.inference_mode():
            scores, backwards = model(x), model(x.flip(1))
        accuracy = (scores.argmax(-1) == label).float().mean().item()
        other = (backwards.argmax(-1) == label).float().mean().item()
        size = sum(p.numel() for p in model.parameters())
        print(f"{name:24}{accuracy:10.1%}{other:11.1%}{1e3 * spent:12.1f}{size:12,}")
        result[f"accuracy of {name}"] = accuracy
        result[f"accuracy of {name}, played backwards"] = other
        result[f"largest change of {name}"] = (scores - backwards).abs().max().item()
    return result


if __name__ == "__main__":
    main()
