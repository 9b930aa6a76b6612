"""Checks of the stores: reachable, of this configuration, of this teacher, and with room left."""

from rich.filesize import decimal

from egapipe.pipeline.config.teachers import ImportedTeacher
from egapipe.pipeline.results.pairing import check_pair
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.stages.doctor.parts import MissingError, Parts
from egapipe.stages.doctor.report import Result, fail, ok, warn
from egapipe.stages.extract.planning.room import free_bytes, probe_writing, require_room
from egapipe.stages.extract.verifying.verify import verify_store


def check_reachable(parts: Parts) -> Result:
    """Stores that are complete can be read; where one is not, it can be written."""
    said, unfinished = [], False
    for split in parts.config.splits():
        try:
            store = parts.store(split)
        except MissingError:
            place = open_objects(parts.config.store_url(split))
            probe_writing(place)
            said.append(f"no {split} store yet, {place.url} is writable")
            continue
        found = store.snapshot()
        if found.complete:
            said.append(f"{store.url} is complete")
        else:
            probe_writing(store.objects)
            unfinished = True
            said.append(f"{store.url} has {len(found.committed)} of {len(store.shards)} shards")
    text = ", ".join(said)
    return warn(f"{text}: run `egapipe extract` to finish it") if unfinished else ok(text)


def check_manifest(parts: Parts) -> Result:
    """The stores hold what the configuration asks for. Reads every image once a node."""
    stores = parts.stores()
    for split, store in stores.items():
        check_pair(store, parts.config, parts.dataset(split), split)
    named = " and ".join(stores)
    return ok(f"{named}: images, teacher, views and stored type are those of the configuration")


def check_preprocessing(parts: Parts) -> Result:
    """The store's embeddings were made with the normalisation of the teacher's own processor."""
    stores, teacher = parts.stores(), parts.config.teacher
    if isinstance(teacher, ImportedTeacher):
        asked = teacher.normalize.model_dump(mode="json")
    else:
        asked = parts.teacher.get().preprocessing.to_json()
    for store in stores.values():
        stored = store.manifest.preprocessing
        different = [
            f"{k} is {stored.get(k)}, the teacher's {v}"
            for k, v in asked.items()
            if stored.get(k) != v
        ]
        if different:
            return fail(
                f"store {store.url}: {'; '.join(different)}: extract into another store.url"
            )
    if "mean" not in asked:
        return ok("the teacher sees arrays as they are")
    return ok(f"mean {asked['mean']}, std {asked['std']}, as the teacher's processor has it")


def check_embeddings(parts: Parts) -> Result:
    """One stored embedding is what the teacher gives for that image and view today."""
    if not parts.store("train").snapshot().committed:
        raise MissingError("the train store has no embeddings yet")
    # Only for its refusal: the embedding is computed by a teacher of its own.
    parts.teacher.get()
    report = verify_store(parts.config, split="train", count=1)
    said = "; ".join(line.strip() for line in report.lines()[1:])
    if not report.ok:
        return fail(f"{said}: the store is of another teacher, extract into another store.url")
    return warn(said) if report.software else ok(said)


def check_extraction(parts: Parts) -> Result:
    """What is left to be extracted would not be refused: the stores can be continued, and fit."""
    plans = parts.plans.get()
    if not any(plan.pending for plan in plans):
        return ok("nothing is left to be extracted")
    require_room(plans)
    left, free = sum(plan.bytes_left for plan in plans), free_bytes(plans[0].objects)
    there = "free space unknown there" if free is None else f"{decimal(free)} free"
    return ok(f"{decimal(left)} to be written, {there}; see `egapipe extract --dry-run`")
