"""The features a run learned from: recorded with it, and compared whenever it is taken up again."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import ValidationError

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_split
from egapipe.pipeline.datasets.pairs import pairs_digest
from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.identity import in_place
from egapipe.pipeline.results.images import WHOLE_ROWS, changed_images, root_of
from egapipe.pipeline.results.pairing import asked_of
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.store import FeatureStore, Manifest

_log = logging.getLogger(__name__)

STORE = "store.json"
PAIRS = "pairs"

Record = dict[str, Any]
_SHORT = 12
_NAMED = 5
_REMEDY = (
    "train it anew with --restart, set another name or runs, or point store.url at the features it "
    "learned from"
)


def features_record(
    stores: Sequence[FeatureStore],
    test: Dataset | None,
    test_store: FeatureStore | None,
    pairs: str | None = None,
) -> Record:
    """The content of store.json. stores: of the training splits, complete, `train` first. test: the
    images that the student is tested on; test_store: complete, where the teacher has seen them.
    pairs: digest of those of the data set, where there are some.

    Raises StoreError if a store is not complete.
    """
    first, *others = map(_record, stores)
    record = {**first, "unlabelled": others} if others else first
    if test is not None:
        record["test"] = {"fingerprint": test.fingerprint(), "rows": len(test)}
        if test_store is not None:
            record["test"]["store"] = _record(test_store)
    return record if pairs is None else {**record, PAIRS: pairs}


def identity_part(record: Record) -> Record:
    """Of a record, what people compare at a glance: without manifests."""
    short = {key: record[key] for key in ("url", "manifest_hash", "content_hash")}
    others = [identity_part(other) for other in record.get("unlabelled", [])]
    return {**short, "unlabelled": others} if others else short


def require_features(run: RunFolder, now: Record) -> None:
    """Raise StoreError with the difference if a run has learned from other features than these."""
    if run.has(STORE):
        _refuse(run, list(_differences(_read(run), now)))


def require_current(run: RunFolder, config: Config) -> None:
    """Raise StoreError with the difference if a finished run is of other features or images than a
    configuration finds now.

    What is not there any more is not compared: results outlive the files that they were made of.
    """
    then = _read(run)
    records = [then, *then.get("unlabelled", [])]
    found: list[str] = []
    for split, record in zip(config.training_splits(), records, strict=False):
        found += _since(record, config, split)
    if config.dataset.test is not None and "test" in then:
        found += _test_since(then["test"], config)
    if config.dataset.pairs is not None and PAIRS in then:
        found += _pairs_differences(then[PAIRS], _pairs_now(config.dataset.pairs) or then[PAIRS])
    _refuse(run, found)


def require_still(run: RunFolder) -> None:
    """`require_current` for the configuration that a run has recorded; one that has not begun is
    nobody's."""
    if run.has(STORE):
        require_current(run, run.config())


def require_record(run: RunFolder) -> None:
    """Raise UsageError if the record of a run's features is damaged; one that has not begun has
    none."""
    if run.has(STORE):
        _read(run)


def require_one_source(runs: Mapping[str, RunFolder]) -> None:
    """Raise UsageError, which names the runs, unless all of them learned from the same features.

    Numbers of different features do not belong into one table. runs: name -> folder; those that
    have not begun are left out.
    """
    groups: list[tuple[Record, list[str]]] = []
    for name, run in runs.items():
        if not run.has(STORE):
            continue
        record = _read(run)
        for known, names in groups:
            if not list(_differences(known, record)):
                names.append(name)
                break
        else:
            groups.append((record, [name]))
    if len(groups) > 1:
        said = [f"{_names(names)} from {_content(r)}" for r, names in groups]
        listed = "; ".join(said[:_NAMED]) + _more(said, " other contents")
        why = "; ".join(_differences(groups[0][0], groups[1][0]))
        raise UsageError(
            f"one table cannot hold runs that learned from different features: {listed} ({why}): "
            "train them anew from one store with --restart, or under another name"
        )


def _record(store: FeatureStore) -> Record:
    """embeddings_hash: of the shards alone, whatever the manifest says. images: the identity of the
    images, where the manifest has not got it."""
    found = store.finished()
    images = found.images_root()
    return {
        **({} if images is None else {"images": images}),
        "url": store.url,
        "manifest_hash": store.manifest.hash(),
        "content_hash": found.content_hash(),
        "embeddings_hash": found.embeddings_hash(),
        "manifest": store.manifest.model_dump(mode="json"),
    }


def _read(run: RunFolder) -> Record:
    record = run.read_json(STORE)
    others = record.get("unlabelled", [])
    if not isinstance(others, list) or not all(isinstance(o, dict) for o in others):
        raise UsageError(f"{run.where}/{STORE} is damaged: unlabelled is no list of stores")
    test = record.get("test", {"fingerprint": ""})
    if not isinstance(record.get(PAIRS, ""), str):
        raise UsageError(f"{run.where}/{STORE} is damaged: pairs is no digest")
    if not isinstance(test, dict) or "fingerprint" not in test:
        raise UsageError(f"{run.where}/{STORE} is damaged: test has no fingerprint")
    stores = [record, *others, *([test["store"]] if "store" in test else [])]
    if not all(isinstance(s, dict) and isinstance(s.get("content_hash"), str) for s in stores):
        raise UsageError(f"{run.where}/{STORE} is damaged: a store has no content_hash")
    return record


def _refuse(run: RunFolder, differences: list[str]) -> None:
    if differences:
        raise StoreError(
            f"run {run.where} has not learned from what is there now: {'; '.join(differences)}: "
            f"{_REMEDY}"
        )


def _differences(then: Record, now: Record) -> Iterator[str]:
    """What two records differ in, a phrase each; stores that only one has are left out."""
    pairs = zip(
        (then, *then.get("unlabelled", [])), (now, *now.get("unlabelled", [])), strict=False
    )
    for old, new in pairs:
        yield from _store_differences(old, new)
    if "test" in then and "test" in now:
        yield from _test_differences(then["test"], now["test"])
    if PAIRS in then and PAIRS in now:
        yield from _pairs_differences(then[PAIRS], now[PAIRS])


def _store_differences(then: Record, now: Record) -> Iterator[str]:
    if then["content_hash"] == now["content_hash"]:
        return
    old, new = _manifest(then), _manifest(now)
    if old is not None and new is not None:
        changes = old.changes(new)
        yield from (f"{key} was {was}, is {is_}" for key, (was, is_) in changes.items())
        if changes or then.get("embeddings_hash") == now.get("embeddings_hash"):
            return
    yield f"the content was {_content(then)}, is {_content(now)}"


def _test_differences(then: Record, now: Record) -> Iterator[str]:
    """Of the images, and of their store where both have one."""
    was, is_ = str(then.get("fingerprint")), str(now.get("fingerprint"))
    if was != is_:
        yield f"the test images were {was[:_SHORT]}, are {is_[:_SHORT]}"
    elif "store" in then and "store" in now:
        yield from (
            f"test store: {text}" for text in _store_differences(then["store"], now["store"])
        )


def _pairs_differences(then: str, now: str) -> Iterator[str]:
    if then != now:
        yield f"the pairs of rows were {then[:_SHORT]}, are {now[:_SHORT]}"


def _pairs_now(place: str) -> str | None:
    """Their digest, if they are there and can be reached."""
    try:
        return pairs_digest(place)
    except EgapipeError as error:
        _log.warning("a finished run is not compared with its pairs: %s", error)
        return None


def _since(then: Record, config: Config, split: Split) -> Iterator[str]:
    """What has changed since a run was finished, a phrase each."""
    dataset, store = _images(config, split), _store(config, split, then)
    recorded = _manifest(then)
    if dataset is not None and (store is not None or recorded is not None):
        made = store.manifest if store is not None else recorded
        assert made is not None  # noqa: S101  (one of the two is there)
        listed = made.differences(asked_of(made, config, dataset, split))
        if listed:
            yield from listed
            return
        known = then.get("images") if len(dataset) <= WHOLE_ROWS else None
        if known is not None and root_of(dataset, made) != known:
            changed = list(_changed(store, dataset))
            if changed:
                yield from changed
                return
    yield from _content_since(then, store)


def _changed(store: FeatureStore | None, dataset: Dataset) -> Iterator[str]:
    """The first image that has changed, where there is a store to say which one."""
    found = None if store is None else store.snapshot()
    if store is None or found is None or not found.complete:
        yield f"images of {dataset.name} are others"
        return
    # None where only rows that have failed can be read now, or are others.
    for first in islice(changed_images(store, found, dataset), 1):
        yield f"image {first.key} (row {first.row}) is another one"


def _test_since(then: Record, config: Config) -> Iterator[str]:
    images, store = _images(config, "test"), _store(config, "test", then.get("store", {}))
    now = then["fingerprint"] if images is None else images.fingerprint()
    yield from _test_differences(then, {"fingerprint": now})
    if now == then["fingerprint"] and "store" in then:
        found = _content_since(then["store"], store)
        yield from (f"test store: {text}" for text in found)


def _content_since(then: Record, store: FeatureStore | None) -> Iterator[str]:
    """Of a store that is there, and was finished."""
    if store is None:
        return
    end = store.ended()
    if end is not None and end.content != then["content_hash"]:
        yield from _store_differences(then, _record(store))


def _images(config: Config, split: Split) -> Dataset | None:
    """The images of a split that lie where the configuration says, and may be others by now."""
    source = config.source(split)
    if source is None or not in_place(durable(source)):
        return None
    try:
        return open_split(config, split)
    except EgapipeError:
        return None


def _store(config: Config, split: Split, then: Record) -> FeatureStore | None:
    """The store of a split, if it is there and can be reached: with as many rows as a record says,
    where others were appended since."""
    url = config.store_url(split)
    try:
        recorded = _manifest(then)
        rows = None if recorded is None else recorded.rows
        return FeatureStore.open(url, rows) if FeatureStore.exists(url) else None
    except StoreError as error:
        _log.warning("a finished run is not compared with its store: %s", error)
        return None


def _manifest(record: Record) -> Manifest | None:
    """None in the records of older egapipes, and of newer ones."""
    try:
        return Manifest.model_validate(record.get("manifest"))
    except ValidationError:
        return None


def _content(record: Record) -> str:
    return str(record["content_hash"])[:_SHORT]


def _names(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + _more(names, "")


def _more(listed: Sequence[str], what: str) -> str:
    left = len(listed) - _NAMED
    return f" and {left} more{what}" if left > 0 else ""
