"""Mixup and cutmix: a batch of images with others of the same batch in them.

A mixture is a mask: the share of the image itself at each of its pixels, everywhere the same for
mixup, 0 within a box for cutmix. What a row is mixed with is the row half a global batch further
on, in the order of the epoch, whichever worker has it.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from egapipe.pipeline.config.augment import MixConfig
from egapipe.pipeline.mathematics.resampling import rounded
from egapipe.pipeline.views import WHOLE, Hashes, drawn_shares, further_draws
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.inputs.crops import Size

Ints = npt.NDArray[np.int64]

COLUMNS = 5
_PLACE = 4
"""Of the first of five draws among `further_draws`, behind those of the colours."""


def partners(batch: Ints) -> Ints:
    """A column of a global batch, [B, ...], for what each row is mixed with."""
    return np.roll(batch, -(len(batch) // 2), axis=0)


def mixtures(mix: MixConfig, seed: int, hashes: Hashes, k: Ints, size: Size) -> Ints:
    """The mask of view `k` of each key, int64 [N, 5]: the share outside of a box, and the box's
    top, left, height and width, of images of a size (height, width).

    A pure function of (seed, key, k).
    """
    u = further_draws(seed, hashes, k, _PLACE, COLUMNS)
    share = drawn_shares(mix.alpha, mix.probability, u)
    cut = np.full(len(u), mix.kind == "cutmix") | ((mix.kind == "either") & (u[:, 2] < 0.5))
    sides = np.rint(np.sqrt(1.0 - share)[:, None] * size) * cut[:, None]
    places = np.floor(u[:, 3:5] * (np.array(size) - sides + 1))
    around = np.where(cut, WHOLE, np.rint(share * WHOLE))
    return np.column_stack([around, places, sides]).astype(np.int64)


def mixed(batch: Batch, drawn: Tensor, *, teacher: bool) -> Batch:
    """The first half of a batch, each row mixed with that of the second half.

    drawn: int64 [B, 5] of `mixtures`, of the first half. teacher: mix its outputs too; they are
    float32 then.
    """
    first, second = own_half(batch), _part(batch, slice(len(batch.rows) // 2, None))
    mask = _mask(drawn, (batch.images.shape[2], batch.images.shape[3]))
    images = _levels(first.images, second.images, mask)
    share = mask.mean(dim=(1, 2, 3))
    features, outputs = first.features, first.outputs
    if teacher:
        features = _mixed_output(features, second.features, mask, share)
        outputs = {n: _mixed_output(o, second.outputs[n], mask, share) for n, o in outputs.items()}
    return replace(
        first,
        images=images,
        features=features,
        outputs=outputs,
        others=second.labels,
        share=share,
    )


def blended(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Images, uint8 [B, 3, H, W], with others in them, to the number as a teacher's are mixed.
    share: int64 [B] of each's own, in parts of `WHOLE`."""
    return _levels(own, other, (share.float() / WHOLE)[:, None, None, None])


def own_half(batch: Batch) -> Batch:
    """The rows that are mixed with those behind them."""
    return _part(batch, slice(None, len(batch.rows) // 2))


def _levels(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return rounded(_sum(own.float(), other.float(), share)).to(torch.uint8)


def _part(batch: Batch, rows: slice) -> Batch:
    return batch.mapped(lambda values: values[rows])


def _mixed_output(own: Tensor, other: Tensor, mask: Tensor, share: Tensor) -> Tensor:
    """Of maps [B, C, h, w] each place by the share of the image there, of all others the whole by
    that of the whole image, [B]; float32."""
    if own.dim() == 4:
        at = F.adaptive_avg_pool2d(mask, (own.shape[2], own.shape[3]))
    else:
        at = share.view(-1, *(1 for _ in own.shape[1:]))
    return _sum(own.float(), other.float(), at)


def _mask(drawn: Tensor, size: Size) -> Tensor:
    """float32 [B, 1, H, W]."""
    around, top, left, height, width = (column[:, None] for column in drawn.unbind(dim=1))
    y, x = (torch.arange(length, device=drawn.device)[None] for length in size)
    down = ((y >= top) & (y < top + height))[:, None, :, None]
    across = ((x >= left) & (x < left + width))[:, None, None, :]
    return (around.float() / WHOLE)[:, :, None, None] * ~(down & across)


def _sum(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return share * own + (1 - share) * other
