"""A student trained for a few epochs on real digits, once for all tests of this folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from egapipe.pipeline.config import load_config
from egapipe.stages import distill
from tests.stages.copies import copy_with
from tests.stages.distill.conftest import MakeConfig, digits_store, quick

__all__ = ["CopyRun", "MakeConfig", "digits_store", "quick"]

CopyRun = Callable[..., Path]


@pytest.fixture(scope="session")
def finished(digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder. Evaluating it changes nothing but what it adds."""
    runs = tmp_path_factory.mktemp("runs")
    sets = [f"store.url={digits_store}", f"runs={runs}", "views.count=2"]
    few = ["distill.epochs=8", "distill.threads=1", "distill.ema_decay=0.9"]
    config = load_config("quickstart", [*sets, *few])
    return distill.run(config).run


@pytest.fixture(scope="session")
def better_before(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that folder whose best epoch was not its last one: it has other weights.

    They are what the student was while its classifier still took no notice of half of the nodes.
    """
    run = copy_with(finished, tmp_path_factory.mktemp("better") / "run", {}, "evaluation.json")
    last = json.loads((run / "checkpoints" / "last.json").read_text("utf-8"))["folder"]
    best = run / "checkpoints" / "epoch00003-step0000000"
    shutil.copytree(run / "checkpoints" / last, best)
    heads = load_file(best / "heads.safetensors")
    heads["student.head.classifier.weight"][:, :32] = 0
    heads["student.head.node.weight"][:32] /= 2
    save_file(heads, best / "heads.safetensors")
    pointer = json.dumps({"folder": best.name})
    (run / "checkpoints" / "best.json").write_text(pointer, "utf-8")
    tops = {distill.load_student(run, which).accuracy().top1 for which in ("last", "best", "ema")}
    assert len(tops) == 3
    return run


@pytest.fixture
def copy_run(finished: Path, tmp_path: Path) -> CopyRun:
    """A copy of that folder whose configuration has other values, by dotted path."""

    def copy(**values: object) -> Path:
        return copy_with(finished, tmp_path / "copy", values, "evaluation.json")

    return copy
