"""What people ask of a store, in a few lines."""

from typing import Any

from rich.filesize import decimal

from egapipe.pipeline.store.store import FeatureStore

Summary = dict[str, Any]


def summarize(url: str) -> Summary:
    """What a store holds and how much of it is there, as JSON values. bytes: of all objects.

    Raises StoreError if it cannot be read.
    """
    store = FeatureStore.open(url)
    manifest, commits = store.manifest, store.commits()
    return {
        "url": store.url,
        "complete": store.complete,
        "shards": {"committed": len(commits), "planned": len(store.shards)},
        "rows": manifest.rows,
        "views": manifest.view_count,
        "outputs": {name: list(shape) for name, shape in manifest.outputs.items()},
        "dtype": manifest.dtype,
        "bytes": sum(store.objects.sizes().values()),
        "failures": sum(len(commit.failures) for commit in commits.values()),
        "nonfinite": sum(commit.nonfinite for commit in commits.values()),
        "dataset": manifest.dataset.model_dump(mode="json"),
        "teacher": manifest.teacher,
        "preprocessing": manifest.preprocessing,
        "views_plan": manifest.views.model_dump(mode="json"),
        "versions": manifest.versions,
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
        *((f"teacher {key}", str(value)) for key, value in summary["teacher"].items()),
    ]
