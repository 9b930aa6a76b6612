"""One shard in memory: a teacher's float32 outputs become stored numbers and a list of failures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.store.format.dtypes import Floats, Stored, is_finite, not_a_number, to_stored
from egapipe.pipeline.store.format.manifest import Manifest
from egapipe.pipeline.store.records.digests import Digests, rows_without
from egapipe.pipeline.store.records.record import IMAGES, NOT_FINITE, Failure


@dataclass(frozen=True)
class Shard:
    """What will be stored of a range of rows.

    blocks: array -> [rows, V, *shape] in the stored type, NaN in failed rows; the images' digests
    as they are. failures: by row.
    nonfinite: how many of them failed because the teacher's output is not finite in that type.
    """

    blocks: dict[str, Stored]
    failures: list[Failure]
    nonfinite: int


def prepare_shard(
    manifest: Manifest,
    rows: range,
    arrays: Mapping[str, Floats],
    failures: Sequence[Failure],
    keys: Callable[[Sequence[int]], list[str]],
    digests: Digests | None = None,
) -> Shard:
    """Convert a shard, and find the rows that cannot be stored.

    arrays: output -> float32 [rows, V, *shape]. failures: of these rows, known already.
    keys: rows -> their keys. digests: of their images, where the store keeps them; only a row that
    failed may be without. Raises ValueError if the arguments do not belong to the shard.
    """
    _check_arrays(manifest, rows, arrays)
    _check_failures(rows, failures, keys)
    if digests is not None:
        _check_digests(rows, failures, digests)
    blocks = {name: to_stored(arrays[name], manifest.dtype) for name in manifest.outputs}
    known = {failure.row for failure in failures}
    found = [r for r in _nonfinite_rows(manifest, rows, blocks) if r not in known]
    reason = NOT_FINITE.format(dtype=manifest.dtype)
    added = [Failure(row, key, reason) for row, key in zip(found, keys(found), strict=True)]
    failed = sorted([*failures, *added])
    for block in blocks.values():
        block[[failure.row - rows.start for failure in failed]] = not_a_number(manifest.dtype)
    if digests is not None:
        blocks[IMAGES] = digests
    return Shard(blocks, failed, len(added))


def _check_arrays(manifest: Manifest, rows: range, arrays: Mapping[str, Floats]) -> None:
    if arrays.keys() != manifest.outputs.keys():
        raise ValueError(f"arrays are {sorted(arrays)}, not {sorted(manifest.outputs)}")
    for name, array in arrays.items():
        shape = (len(rows), manifest.view_count, *manifest.outputs[name])
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not float32 {shape}")


def _check_failures(
    rows: range, failures: Sequence[Failure], keys: Callable[[Sequence[int]], list[str]]
) -> None:
    failed = [failure.row for failure in failures]
    if len(set(failed)) < len(failed) or not set(failed) <= set(rows):
        raise ValueError(f"failures are not different rows of {rows}: {list(failures)}")
    if keys(failed) != [failure.key for failure in failures]:
        raise ValueError(f"failures have not the keys of their rows: {list(failures)}")


def _check_digests(rows: range, failures: Sequence[Failure], digests: Digests) -> None:
    failed = {failure.row for failure in failures}
    lacking = sorted(rows_without(rows.start, digests) - failed)
    if lacking:
        raise ValueError(f"rows have no digest of their image and did not fail: {lacking}")


def _nonfinite_rows(
    manifest: Manifest, rows: range, blocks: Mapping[str, Stored]
) -> npt.NDArray[np.int64]:
    finite = np.ones(len(rows), dtype=bool)
    for block in blocks.values():
        finite &= is_finite(block, manifest.dtype).reshape(len(rows), -1).all(axis=1)
    return rows.start + np.flatnonzero(~finite)
