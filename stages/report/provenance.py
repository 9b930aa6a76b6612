"""Where results come from: configuration, store, software."""

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.machine.versions import source_commit
from egapipe.pipeline.store import FeatureStore
from egapipe.stages.report.pages.document import Section


def provenance(config: Config, summary: Mapping[str, Any] | None = None) -> Section:
    """A section with the whole configuration, the manifests, versions and the commit."""
    section = Section("Provenance")
    facts = {**_facts(summary or {}), "report made by": _software()}
    section.long_texts([], list(facts.items()))
    section.code("Configuration", to_yaml(config))
    for split in config.splits():
        section.code(f"Manifest of the {split} store", _manifest(config, split))
    return section


def _facts(summary: Mapping[str, Any]) -> dict[str, object]:
    facts: dict[str, object] = {
        name: summary[name] for name in ("device", "platform", "commit") if summary.get(name)
    }
    facts |= dict(summary.get("versions", {}))
    store = summary.get("store", {})
    return facts | {f"store {name.replace('_', ' ')}": value for name, value in store.items()}


def _software() -> str:
    commit = source_commit()
    version = f"egapipe {importlib.metadata.version('egapipe')}"
    return f"{version}, commit {commit}" if commit else version


def _manifest(config: Config, split: str) -> str:
    try:
        manifest = FeatureStore.open(config.store_url(split)).manifest
    except EgapipeError as error:
        return f"not there: {error}"
    return json.dumps(manifest.model_dump(mode="json"), indent=2)
