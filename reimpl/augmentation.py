"""Random changes to whole batches of images, for a paper's `augment`."""

import torch
from torch import Tensor, nn


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Windows of the images' own size out of images with a black margin.

    Args:
        images: (N, C, H, W).
        padding: pixels of margin on each side; every place of the window is as likely.
        generator: draws the places, on the CPU, so that they are the same on every device.
    """
    count, _, height, width = images.shape
    corners = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows = (corners[0] + torch.arange(height)).to(images.device)[:, None, :, None]  # (N, 1, H, 1)
    columns = (corners[1] + torch.arange(width)).to(images.device)[:, None, None, :]
    padded = nn.functional.pad(images, (padding,) * 4)
    image = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[image, channel, rows, columns]


def random_flip(images: Tensor, generator: torch.Generator, *, share: float = 0.5) -> Tensor:
    """Left and right exchanged in a share of the images.

    Args:
        images: (N, C, H, W).
        generator: draws which, on the CPU.
        share: chance of each image.
    """
    flipped = (torch.rand(len(images), generator=generator) < share).to(images.device)
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)
