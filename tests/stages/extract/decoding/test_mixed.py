"""Mixed views as the teacher sees them: of two decoded images a row, in whole grey levels."""

from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.config.data import FolderSource, ViewMix, ViewsConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.views import WHOLE, blended, key_hashes, own_shares, partners, settled
from egapipe.stages.extract.decoding.reader import Reader, with_partners
from tests.stages.extract.decoding.test_decode import DIGITS, PREPROCESSING, Counting
from tests.stages.extract.planning.test_append import append, embeddings, grow
from tests.stages.extract.verifying.test_identity import make_config, run

PLAN = ViewsConfig(count=3, seed=3)
MIXED = settled(PLAN.model_copy(update={"mix": ViewMix()}), None, len(DIGITS))


def test_a_view_is_mixed_with_the_same_view_of_the_partner() -> None:
    plain, mixed = (Reader(DIGITS, PREPROCESSING, plan) for plan in (PLAN, MIXED))
    for row in (0, 11, 500):
        hashes = key_hashes([DIGITS.keys[row]])
        [partner] = partners(MIXED, hashes, np.array([row])).tolist()
        own, other, seen = plain.views(row), plain.views(partner), mixed.views(row)
        assert np.array_equal(seen[0], own[0])
        for k in (1, 2, 3):
            [share] = own_shares(MIXED, hashes, np.array([k])).tolist()
            assert WHOLE // 2 <= share < WHOLE
            assert np.array_equal(seen[k], blended(own[k], other[k], share))


def test_each_row_costs_one_more_image(tmp_path: Path) -> None:
    """Digests are of its own; one that cannot be read leaves others as they are."""
    for row in range(8):
        DIGITS.image(row).save(tmp_path / f"{row}.png")
    (tmp_path / "5.png").write_bytes(b"no image")
    dataset = Counting(FolderSource(kind="folder", path=str(tmp_path)))
    plan = settled(MIXED.model_copy(update={"mix": ViewMix()}), None, 8)
    mixed, plain = Reader(dataset, PREPROCESSING, plan), Reader(dataset, PREPROCESSING, PLAN)
    others = partners(plan, key_hashes(dataset.keys), np.arange(8))
    assert 5 in others
    for row in range(8):
        dataset.seen.clear()
        slots = [np.empty(PREPROCESSING.shape, np.uint8) for _ in range(4)]
        decoded = mixed.read(row, slots)
        assert len(decoded.failures) == (row == 5)
        assert dataset.seen == [others[row], row]
        alone = plain.read(row, [np.empty(PREPROCESSING.shape, np.uint8) for _ in range(4)])
        assert decoded.digests == alone.digests
        if row != 5 and others[row] == 5:
            assert all(map(np.array_equal, slots, plain.views(row)))


def test_who_reads_rows_is_told_where_their_partners_are() -> None:
    rows = range(40, 50)
    others = partners(MIXED, key_hashes(DIGITS.keys[40:50]), np.arange(40, 50)).tolist()
    assert with_partners(MIXED, DIGITS, rows) == [*rows, *sorted({*others} - {*rows})]
    assert with_partners(PLAN, DIGITS, rows) is rows


def test_a_store_that_grows_keeps_its_rows_views(tmp_path: Path) -> None:
    """Also those that are done again, and a store made at once is another one."""
    config = make_config(tmp_path, views={"count": 2, "mix": {}})
    (tmp_path / "images").mkdir()
    grow(config, 0, 10)
    before = embeddings(run(config))
    grow(config, 10, 15)
    store = append(config)
    mix = store.manifest.plan.mix
    assert mix is not None
    assert (store.manifest.rows, mix.among) == (15, 10)
    assert np.array_equal(embeddings(store)[:10], before)
    again = append(config)
    assert again.content_hash() == store.content_hash()


def test_mixtures_are_made_where_images_are_resized(tmp_path: Path) -> None:
    with pytest.raises((UsageError, ValueError), match="canvas"):
        make_config(tmp_path, views={"count": 2, "mix": {}}, extract={"canvas": 64})
