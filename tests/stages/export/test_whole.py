"""An export is whole or not there, whoever made the run and whatever ends the export."""

import json
import threading
import time
from pathlib import Path

import pytest

from egapipe.stages import export, predict
from tests.command import start
from tests.golden_copy import golden

__all__ = ["golden"]

RUN = "runs/golden/digits_cnn-ega-seed0-79a619d1"


def test_a_run_of_an_older_egapipe_is_exported(golden: Path) -> None:
    found = export.run(golden / RUN, formats=["safetensors", "onnx"])
    assert [file.error <= 1e-4 for file in found.files] == [True, True]
    assert not isinstance(found.accuracy, str)
    images = sorted((golden / "images" / "test").rglob("*.png"))
    by_format = [
        [one.classes[0][0] for one in predict.run(model, images)]
        for model in (golden / RUN, golden / RUN / "export", golden / RUN / "export" / "model.onnx")
    ]
    assert by_format[0] == by_format[1] == by_format[2]
    assert found.accuracy.images == len(images)


@pytest.mark.slow
def test_two_exports_at_once_leave_one_of_them_whole(finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    export.run(finished, to=to, formats=["safetensors"])
    work = [
        threading.Thread(
            target=export.run,
            args=(finished,),
            kwargs={"to": to, "formats": ["safetensors"], "checkpoint": which},
        )
        for which in ("last", "ema")
    ]
    for one in work:
        one.start()
    for one in work:
        one.join()
    record = json.loads((to / "export.json").read_text("utf-8"))
    single = export.run(
        finished, to=tmp_path / record["which"], formats=["safetensors"], checkpoint=record["which"]
    )
    for name in ("model.safetensors", "config.json"):
        assert (to / name).read_bytes() == (Path(single.folder) / name).read_bytes()
    assert not list(to.glob(".egapipe-*"))


@pytest.mark.slow
def test_a_killed_export_leaves_what_was_there(finished: Path, tmp_path: Path) -> None:
    """Slow: a process of its own is killed while it writes."""
    to = tmp_path / "out"
    export.run(finished, to=to, formats=["safetensors"], licence="mit")
    before = {path.name: path.read_bytes() for path in to.iterdir()}
    process = start("export", str(finished), "--to", str(to))
    while not list(to.glob(".egapipe-*/model.onnx")) and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.wait(60)
    left = {path.name: path.read_bytes() for path in to.iterdir() if path.is_file()}
    assert left == before
    export.run(finished, to=to, formats=["safetensors", "torch"])
    assert "model.pt2" in {path.name for path in to.iterdir()}
