"""What people ask of a store, in a few lines."""

from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal

from egapipe.pipeline.store.format.manifest import Manifest
from egapipe.pipeline.store.objects.location import Place
from egapipe.pipeline.store.records.record import Commit
from egapipe.pipeline.store.store import FeatureStore

Summary = dict[str, Any]


def summarize(place: Place) -> Summary:
    """What a store holds and how much of it is there, as JSON values. bytes: of all objects.

    Raises StoreError if it cannot be read.
    """
    store = FeatureStore.open(place)
    manifest, found = store.manifest, store.snapshot(everything=True)
    commits = found.commits
    return {
        "url": store.url,
        "complete": found.complete,
        "shards": {"committed": len(commits), "planned": len(store.shards)},
        "rows": manifest.rows,
        "views": manifest.view_count,
        "outputs": {name: list(shape) for name, shape in manifest.outputs.items()},
        "dtype": manifest.dtype,
        "bytes": sum(found.sizes.values()),
        "failures": len(found.failures),
        "nonfinite": sum(commit.nonfinite for commit in commits.values()),
        "dataset": manifest.dataset.model_dump(mode="json"),
        "teacher": manifest.teacher,
        "preprocessing": manifest.preprocessing,
        "views_plan": manifest.views.model_dump(mode="json"),
        "versions": manifest.versions,
        "shard_versions": _versions_of_shards(manifest, commits),
        "computed": sorted(found.computed, key=lambda kind: list(kind.items())),
    }


def _versions_of_shards(manifest: Manifest, commits: Mapping[int, Commit]) -> dict[str, list[str]]:
    """Name -> versions that shards were made with, where they are not all the manifest's."""
    found: dict[str, set[str]] = {}
    for commit in commits.values():
        for name, version in commit.versions.items():
            found.setdefault(name, set()).add(version)
    return {
        name: sorted(versions)
        for name, versions in sorted(found.items())
        if versions != {manifest.versions.get(name)}
    }


def summary_lines(summary: Summary) -> list[tuple[str, str]]:
    """Names and values for people."""
    shards = summary["shards"]
    done = f"{shards['committed']} of {shards['planned']}"
    state = "complete" if summary["complete"] else "unfinished: `egapipe extract` continues it"
    dims = {n: " x ".join(map(str, shape)) or "1" for n, shape in summary["outputs"].items()}
    return [
        ("store", summary["url"]),
        ("state", state),
        ("shards", done),
        ("rows", f"{summary['rows']:,}"),
        ("views", f"{summary['views']} (the clean one included)"),
        *((f"{name} dim", dim) for name, dim in dims.items()),
        ("dtype", summary["dtype"]),
        ("size", decimal(summary["bytes"])),
        ("failures", f"{summary['failures']} rows, {summary['nonfinite']} of them not finite"),
        ("dataset", f"{summary['dataset']['name']} ({summary['dataset']['fingerprint'][:12]})"),
        *(
            ("computed on", f"{kind['device']}, {kind['precision']}, {kind['batch']} at once")
            for kind in summary["computed"]
        ),
        *(
            ("JPEG images by", decoder)
            for decoder in sorted({kind.get("jpeg", "") for kind in summary["computed"]} - {""})
        ),
        *(
            (f"{name} of shards", ", ".join(versions))
            for name, versions in summary["shard_versions"].items()
        ),
        *((f"teacher {key}", str(value)) for key, value in summary["teacher"].items()),
    ]
