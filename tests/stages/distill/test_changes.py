"""Colours and mixtures: what is drawn, what is made of it, and who must not notice."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.special import betainc
from torch.nn import functional as F

from egapipe.pipeline.config.augment import JitterConfig, MixConfig
from egapipe.pipeline.errors import TrainingError, UsageError
from egapipe.pipeline.results.runs import run_folder
from egapipe.pipeline.views import WHOLE, key_hashes
from egapipe.stages.distill.data.agreement import check_agreement
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.inputs.colours import ONE, jitter_factors, jittered
from egapipe.stages.distill.data.inputs.mixing import mixed, mixtures, partners
from egapipe.stages.distill.model.cross_entropy import batch_cross_entropy, labels_counted
from egapipe.stages.distill.setup import make_batches, prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig

CPU = torch.device("cpu")
HASHES = key_hashes(map(str, range(500)))
SIZE = (8, 10)
BOTH = ["distill.mix={kind: either, probability: 0.8}", "distill.jitter={probability: 0.5}"]


def photographs(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, *SIZE), dtype=np.uint8)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_colours_are_those_of_pil(place: int) -> None:
    """Which rounds the mean grey, and cuts off where we round."""
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[place]
    images = photographs(20)
    factors = np.full((20, 3), ONE)
    factors[:, place] = np.linspace(0, 2, 20) * ONE
    found = jittered(torch.from_numpy(images), torch.from_numpy(factors)).int().numpy()
    for image, own, ours in zip(images, factors, found, strict=True):
        picture = Image.fromarray(image.transpose(1, 2, 0))
        theirs = np.asarray(enhance(picture).enhance(own[place] / ONE)).transpose(2, 0, 1)
        assert np.abs(theirs.astype(int) - ours).max() <= 1
    whole = jittered(torch.from_numpy(images), torch.full((20, 3), ONE))
    assert np.array_equal(whole.numpy(), images)


def test_factors_fill_their_ranges_and_leave_the_others_alone() -> None:
    jitter = JitterConfig(brightness=0.4, contrast=2.0, saturation=0.0, probability=0.5)
    factors = jitter_factors(jitter, 0, HASHES, np.full(500, 3)) / ONE
    changed = (factors != 1).any(axis=1)
    assert 200 < changed.sum() < 300
    bright, contrast, saturation = factors[changed].T
    assert 0.6 <= bright.min() < 0.63 < 1.37 < bright.max() <= 1.4
    assert 0 <= contrast.min() < 0.1 < 2.9 < contrast.max() <= 3
    assert (saturation == 1).all()


@given(st.integers(0, 400), st.integers(1, 2**33), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_what_is_drawn_is_a_function_of_the_key_alone(row: int, k: int, seed: int) -> None:
    """Not of who is drawn with it."""
    some = np.array([7, row, 3])
    ks = np.array([1, k, k])
    for draw in (
        lambda h, k: jitter_factors(JitterConfig(), seed, h, k),
        lambda h, k: mixtures(MixConfig(kind="either"), seed, h, k, SIZE),
    ):
        alone = draw(HASHES[[row]], np.array([k]))[0]
        assert np.array_equal(draw(HASHES[some], ks)[1], alone)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "either"])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_an_image_keeps_half_of_itself_or_more(kind: str, alpha: float) -> None:
    mix = MixConfig.model_validate({"kind": kind, "alpha": alpha, "probability": 0.9})
    around, top, left, height, width = mixtures(mix, 0, HASHES, np.full(500, 1), SIZE).T
    assert ((around >= WHOLE / 2) & (around <= WHOLE)).all()
    assert ((top >= 0) & (top + height <= SIZE[0])).all()
    assert ((left >= 0) & (left + width <= SIZE[1])).all()
    cut = height * width > 0
    assert (around[cut] == WHOLE).all()
    # Sides are whole pixels.
    assert (height * width).max() <= 0.5 * SIZE[0] * SIZE[1] + sum(SIZE)
    assert {"mixup": cut.sum() == 0, "cutmix": cut.sum() > 150, "either": 50 < cut.sum() < 300}[
        kind
    ]
    untouched = ((around == WHOLE) & ~cut).mean()
    assert untouched < 0.9
    if kind == "mixup":
        # The mean of the larger share of Beta(a, a): 3/4 for an even one.
        larger = 1 - betainc(alpha + 1, alpha, 0.5)
        assert (around / WHOLE).mean() == pytest.approx(0.9 * larger + 0.1, abs=0.02)
        assert untouched == pytest.approx(0.1, abs=0.05) or alpha < 1


def pairs(labels: list[int]) -> Batch:
    half = len(labels) // 2
    images = torch.from_numpy(photographs(len(labels)))
    return Batch(
        images=images,
        features=torch.arange(2.0 * len(labels)).half().view(-1, 2),
        labels=torch.tensor(labels),
        rows=torch.arange(len(labels)),
        outputs={
            "grid": torch.arange(1.0 * len(labels)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2),
            "tokens": torch.arange(1.0 * len(labels)).view(-1, 1, 1).expand(-1, 3, 2),
        },
        draws=torch.zeros(2 * half, dtype=torch.int64),
    )


def test_a_mixture_by_hand() -> None:
    """A sum at 3/4, and a box of 4 x 5 in the upper left corner: a quarter, and of a 2 x 2 grid one
    place."""
    batch = pairs([0, 1, 2, -1])
    drawn = torch.tensor([[WHOLE * 3 // 4, 0, 0, 0, 0], [WHOLE, 0, 0, 4, 5]])
    found = mixed(batch, drawn, teacher=True)
    images = batch.images.float()
    expected = (0.75 * images[0] + 0.25 * images[2] + 0.5).floor()
    assert torch.equal(found.images[0].float(), expected)
    cut = batch.images[1].clone()
    cut[:, :4, :5] = batch.images[3][:, :4, :5]
    assert torch.equal(found.images[1], cut)
    assert found.share.tolist() == [0.75, 0.75]
    assert found.features.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert found.outputs["grid"][0].flatten().tolist() == [0.5] * 4
    assert found.outputs["grid"][1].flatten().tolist() == [3, 1, 1, 1]
    assert found.outputs["tokens"].flatten(1).tolist() == [[0.5] * 6, [1.5] * 6]
    assert found.labels.tolist() == [0, 1]
    assert found.others.tolist() == [2, -1]
    assert found.rows.tolist() == [0, 1]
    own = mixed(batch, drawn, teacher=False)
    assert torch.equal(own.features, batch.features[:2])
    assert all(torch.equal(own.outputs[n], o[:2]) for n, o in batch.outputs.items())
    assert torch.equal(own.images, found.images)


def test_labels_count_by_their_share() -> None:
    """Each of the two that is known; the mean is over what is known."""
    batch = replace(
        pairs([0, -1, 2]),
        others=torch.tensor([1, 1, -1]),
        share=torch.tensor([0.75, 0.5, 0.875]),
    )
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    loss = -F.log_softmax(logits, dim=1)
    expected = 0.75 * loss[0, 0] + 0.25 * loss[0, 1] + 0.5 * loss[1, 1] + 0.875 * loss[2, 2]
    torch.testing.assert_close(batch_cross_entropy(logits, batch), expected)
    assert labels_counted(batch).item() == 2.375


def test_a_row_is_mixed_with_one_half_a_batch_away() -> None:
    assert partners(np.arange(6)).tolist() == [3, 4, 5, 0, 1, 2]
    assert partners(np.arange(5)).tolist() == [2, 3, 4, 0, 1]
    assert partners(np.arange(1)).tolist() == [0]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("data", ["resident", "stream"])
def test_workers_on_device_or_host_have_the_same_mixtures(
    quick: MakeConfig, size: int, data: str
) -> None:
    """As one worker makes them of rows that lie on its device."""
    sets = ["distill.batch_size=30", "distill.augment={crop: pad, flip: alternating}", *BOTH]
    whole = prepare(quick(*sets), World.alone(CPU))
    batches = make_batches(whole)
    batches.begin(1, 2)
    expected = batches.batch()
    assert expected.share.min() < 1  # type: ignore[union-attr]
    job = prepare(quick(*sets, f"distill.data={data}"), World.alone(CPU))
    shared = [replace(job.loader, world=World(rank, size, CPU)) for rank in range(size)]
    parts = [next(loader.epoch(1, 2)) for loader in shared]
    columns = zip(*(part.tensors() for part in parts), strict=True)
    for column, share in zip(expected.tensors(), columns, strict=True):
        assert torch.equal(torch.cat(share), column)


def test_a_row_is_looked_at_before_it_is_changed(quick: MakeConfig) -> None:
    for data in ("resident", "stream"):
        config = quick(*BOTH, f"distill.data={data}")
        job = prepare(config, World.alone(CPU))
        batches = make_batches(job)
        batches.begin(0, 3)
        batches.advance()
        check_agreement(batches.bare(), 0, job.sources, config.distill)
        with pytest.raises(TrainingError, match="the image in the batch is not"):
            check_agreement(batches.batch(), 0, job.sources, config.distill)


def test_changes_make_another_run_and_wrong_ones_are_refused(quick: MakeConfig) -> None:
    sets = ([], BOTH[:1], BOTH[1:], ["distill.mix={teacher: own}"], ["distill.mix={}"])
    assert len({run_folder(quick(*some)).path.name for some in sets}) == 5
    for wrong, said in (
        ("distill.mix={alpha: 0}", r"distill\.mix\.alpha must be greater than 0"),
        ("distill.mix={kind: both}", r"distill\.mix\.kind must be 'mixup', 'cutmix' or 'either'"),
        ("distill.jitter={hue: 0.1}", r"distill\.jitter\.hue is not a key"),
    ):
        with pytest.raises(UsageError, match=said):
            quick(wrong)
