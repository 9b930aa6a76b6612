"""Evaluations of real students: complete, and without what there is no data for."""

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.store import Failure, FeatureStore
from egapipe.stages import distill, evaluate, extract
from egapipe.stages.evaluate.command import table_lines
from tests.command import egapipe
from tests.pipeline.store.samples import digests_of
from tests.stages.evaluate.conftest import CopyRun
from tests.stages.evaluate.photos import write_digits


def written(run: Path) -> dict[str, Any]:
    """evaluation.json, which must be JSON as everybody reads it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (run / "evaluation.json").read_text("utf-8")
    content: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return content


def change_weights(run: Path, file: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = distill.load_student(run).checkpoint / file
    weights = load_file(path)
    save_file({name: change(value).to(value.dtype) for name, value in weights.items()}, path)


def test_a_complete_evaluation(finished: Path) -> None:
    found = evaluate.run(finished)
    summary = RunFolder(finished).summary()
    assert found.left_out == {}
    assert found.predictions is not None
    assert found.predictions.top1 == pytest.approx(summary["top1"])
    assert found.predictions.top5 == pytest.approx(summary["top5"])
    assert found.predictions.images == found.test_images == 360
    assert 0 < found.predictions.calibration_error < 100
    assert found.probe_images == summary["train_rows"] == 1437
    assert found.embeddings.keys() == {"nodes", "features", "teacher"}
    assert [probes.width for probes in found.embeddings.values()] == [64, 64, 128]
    # The labels that the student did not have make its embeddings tell more than its classifier.
    for probes in found.embeddings.values():
        assert found.predictions.top1 < probes.knn <= 100
        assert found.predictions.top1 < probes.linear <= 100
    assert found.embeddings["teacher"].knn > 95
    assert found.graphs.keys() == {"nodes", "features", "node_layers"}
    for agreed in found.graphs.values():
        assert 0.3 < agreed.edge_correlation < 1
        assert 3 * 10 / 359 < agreed.neighbour_recall < 1
    assert found.cost.backbone_parameters == summary["parameters"]
    assert written(finished) == json.loads(json.dumps(found.as_json()))
    assert RunFolder(finished).summary() == {
        **summary,
        "evaluation": {**summary.get("evaluation", {}), "last": written(finished)},
    }


@pytest.mark.slow
def test_a_student_that_learned_the_graph_agrees_more_than_one_that_did_not(
    finished: Path, tmp_path: Path
) -> None:
    plain = load_config(str(finished / "config.yaml"), ["distill.objective={}", f"runs={tmp_path}"])
    with_ega = evaluate.run(finished).graphs["node_layers"]
    without = evaluate.run(distill.run(plain).run).graphs["node_layers"]
    assert with_ega.edge_correlation > without.edge_correlation + 0.2


def test_the_best_checkpoint_is_evaluated_when_asked_for(finished: Path, copy_run: CopyRun) -> None:
    run = copy_run()
    found = evaluate.run(run, checkpoint="best")
    assert found.predictions is not None
    assert found.predictions.top1 == pytest.approx(RunFolder(run).summary()["best_top1"])
    assert written(run)["which"] == "best"
    assert written(run)["checkpoint"] == found.checkpoint
    assert (run / "checkpoints" / found.checkpoint).is_dir()


def test_the_average_of_the_weights_is_evaluated_when_asked_for(copy_run: CopyRun) -> None:
    run = copy_run()
    done = egapipe("evaluate", str(run), "--checkpoint", "ema", "--probe-images", "0", "--json")
    assert done.returncode == 0, done.stderr
    summary = RunFolder(run).summary()
    assert summary["ema_top1"] != summary["top1"]
    found = json.loads(done.stdout)
    assert (found["which"], summary["evaluation"]["ema"]) == ("ema", found)
    assert found["predictions"]["top1"] == pytest.approx(summary["ema_top1"])
    assert found["predictions"]["top5"] == pytest.approx(summary["ema_top5"])


def test_without_test_images_cost_is_left(copy_run: CopyRun) -> None:
    found = evaluate.run(copy_run(dataset__test=None))
    assert (found.predictions, found.embeddings, found.graphs) == (None, {}, {})
    assert found.left_out.keys() == {"predictions", "embeddings", "graphs"}
    assert set(found.left_out.values()) == {"quickstart has no dataset.test"}
    assert found.cost.macs > 0


def test_without_stores_the_student_is_left(copy_run: CopyRun, tmp_path: Path) -> None:
    found = evaluate.run(copy_run(store__url=str(tmp_path / "nowhere")))
    assert found.predictions is not None
    assert found.embeddings.keys() == {"nodes", "features"}
    assert found.left_out.keys() == {"embeddings.teacher", "graphs"}
    assert "nowhere/train.zarr" in found.left_out["embeddings.teacher"]
    assert "nowhere/test.zarr" in found.left_out["graphs"]
    assert all("egapipe extract" in reason for reason in found.left_out.values())


def test_another_teachers_store_is_not_mixed_in(copy_run: CopyRun) -> None:
    found = evaluate.run(copy_run(views__seed=9))
    assert found.embeddings.keys() == {"nodes", "features"}
    assert "views.seed" in found.left_out["embeddings.teacher"]
    # The plan of the test images has the seed too.
    assert "views.seed" in found.left_out["graphs"]


def test_training_images_that_are_gone_leave_the_probes_out(
    copy_run: CopyRun, tmp_path: Path
) -> None:
    gone = {"kind": "folder", "path": str(tmp_path / "gone")}
    found = evaluate.run(copy_run(dataset__train=gone))
    assert found.predictions is not None
    assert found.embeddings == {}
    assert found.left_out.keys() == {"embeddings"}
    assert "gone is not a folder" in found.left_out["embeddings"]
    assert found.graphs.keys() == {"nodes", "features", "node_layers"}


def test_test_images_that_are_gone_are_a_mistake(copy_run: CopyRun, tmp_path: Path) -> None:
    gone = {"kind": "folder", "path": str(tmp_path / "gone")}
    run = copy_run(dataset__test=gone)
    with pytest.raises(UsageError, match="gone is not a folder"):
        evaluate.run(run)
    assert not (run / "evaluation.json").exists()


def test_unlabelled_test_images_have_graphs_alone(copy_run: CopyRun, tmp_path: Path) -> None:
    path = write_digits(tmp_path / "photos", range(90), classes=range(10))
    for file in Path(path).rglob("*.png"):
        file.rename(Path(path) / file.name)
    for folder in Path(path).iterdir():
        if folder.is_dir():
            folder.rmdir()
    test = {"kind": "folder", "path": path}
    run = copy_run(dataset__test=test, distill__image_size=8, store__url=str(tmp_path / "stores"))
    extract.run(RunFolder(run).config(), split="test", local=True)
    found = evaluate.run(run)
    assert found.predictions is None
    assert found.embeddings == {}
    assert found.left_out.keys() == {"predictions", "embeddings"}
    assert "no labelled test image" in found.left_out["embeddings"]
    assert found.graphs.keys() == {"nodes", "features", "node_layers"}
    assert found.test_images == 90


def test_probes_learn_from_as_many_images_as_asked(finished: Path) -> None:
    few = evaluate.run(finished, probe_images=100)
    again = evaluate.run(finished, probe_images=100)
    none = evaluate.run(finished, probe_images=0)
    assert few.probe_images == 100
    assert few.embeddings == again.embeddings
    assert 60 < few.embeddings["teacher"].linear < 100
    assert none.embeddings == {}
    assert none.left_out.keys() == {"embeddings"}
    with pytest.raises(UsageError, match="-1"):
        evaluate.run(finished, probe_images=-1)


def test_a_student_that_says_the_same_of_everything(copy_run: CopyRun) -> None:
    run = copy_run()
    change_weights(run, "student.safetensors", torch.zeros_like)
    found = evaluate.run(run)
    assert found.predictions is not None
    assert found.predictions.top1 < 20
    for name in ("nodes", "features"):
        assert 0 < found.embeddings[name].knn < 20
        assert 0 < found.embeddings[name].linear < 20
    assert math.isnan(found.graphs["nodes"].edge_correlation)
    graphs = {f"graphs.{name}.edge_correlation" for name in ("nodes", "features", "node_layers")}
    assert found.left_out.keys() == graphs
    assert written(run)["graphs"]["nodes"]["edge_correlation"] is None
    assert found.embeddings["teacher"].knn > 95
    assert any("nan" in line for line in table_lines(found))


def test_a_student_that_diverged(copy_run: CopyRun) -> None:
    run = copy_run()
    change_weights(run, "student.safetensors", lambda weight: weight * torch.nan)
    found = evaluate.run(run)
    assert found.embeddings.keys() == {"teacher"}
    assert found.left_out["embeddings.nodes"] == "1437 of 1437 are not finite"
    assert "graphs.features" in found.left_out
    assert "predictions.calibration_error" in found.left_out
    assert written(run)["predictions"]["calibration_error"] is None


@pytest.mark.parametrize("data", ["resident", "stream"])
def test_images_that_failed_are_left_out_everywhere(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train = write_digits(tmp_path / "train", range(300), classes=[0, 1, 2], broken=[5, 50])
    test = write_digits(tmp_path / "test", range(1500, 1640), classes=[0, 1, 2], broken=[7])
    files = [len(list(Path(folder).rglob("*.png"))) for folder in (train, test)]
    config = load_config(
        "quickstart",
        [
            f"dataset.train={{kind: folder, path: {train}}}",
            f"dataset.test={{kind: folder, path: {test}}}",
            "views.count=1",
            "extract.max_failures=10",
            "distill.labels_per_class=5",
            "distill.epochs=2",
            "distill.image_size=8",
            "distill.data=resident",
        ],
    )
    for split in config.splits():
        extract.run(config, split=split, local=True)
    run = distill.run(config).run
    text = (run / "config.yaml").read_text("utf-8")
    assert "data: resident" in text
    (run / "config.yaml").write_text(text.replace("data: resident", f"data: {data}"), "utf-8")
    found = evaluate.run(run)
    assert (found.probe_images, found.test_images) == (files[0] - 2, files[1] - 1)
    assert found.left_out == {}
    assert found.embeddings["teacher"].knn > 80
    (tmp_path / "stores").rename(tmp_path / "gone")
    alone = evaluate.run(run)
    assert (alone.probe_images, alone.test_images) == (files[0] - 2, files[1] - 1)
    assert alone.embeddings["nodes"] == found.embeddings["nodes"]


def test_images_that_the_teacher_failed_on_still_count_for_the_student(
    copy_run: CopyRun, finished: Path, tmp_path: Path
) -> None:
    original = FeatureStore.open(RunFolder(finished).config().store_url("test"))
    store = FeatureStore.create(f"{tmp_path}/test.zarr", original.manifest, original.index())
    for shard, rows in enumerate(original.shards):
        values = original.read_shard(shard).astype(np.float32)
        failed = [Failure(row, original.keys([row])[0], "not finite") for row in rows if row % 3]
        images = digests_of(original, shard)
        store.write_shard(shard, {"embedding": values}, failures=failed, images=images)
    store.finish()
    found, whole = evaluate.run(copy_run(store__url=str(tmp_path))), evaluate.run(finished)
    assert found.predictions == whole.predictions
    assert found.test_images == 360
    assert found.graphs.keys() == whole.graphs.keys()
    # Another 120 images: other numbers, of the same kind.
    assert found.graphs["nodes"] != whole.graphs["nodes"]
    assert found.graphs["nodes"].edge_correlation == pytest.approx(
        whole.graphs["nodes"].edge_correlation, abs=0.1
    )
    assert found.left_out.keys() == {"embeddings.teacher"}


def test_one_class_is_always_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = write_digits(tmp_path / "train", range(120), classes=[4])
    test = write_digits(tmp_path / "test", range(1500, 1580), classes=[4])
    config = load_config(
        "quickstart",
        [
            f"dataset.train={{kind: folder, path: {train}}}",
            f"dataset.test={{kind: folder, path: {test}}}",
            "views.count=1",
            "distill.labels_per_class=null",
            "distill.epochs=1",
            "distill.image_size=8",
        ],
    )
    for split in config.splits():
        extract.run(config, split=split, local=True)
    found = evaluate.run(distill.run(config).run)
    # Fewer images than the 20 neighbours that vote.
    assert 2 < found.probe_images < 20
    assert found.predictions is not None
    assert found.predictions.top1 == found.predictions.top5 == 100
    assert found.predictions.calibration_error == pytest.approx(0, abs=1e-4)
    assert all(p.knn == p.linear == 100 for p in found.embeddings.values())
    assert all(np.isfinite(agreed.neighbour_recall) for agreed in found.graphs.values())


def test_the_command_prints_what_it_writes(copy_run: CopyRun) -> None:
    run = copy_run()
    done = egapipe("evaluate", str(run), "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content == written(run)
    assert content["run"] == str(run)
    assert content["protocol"]["knn_neighbours"] == 20


def test_the_table_has_every_number(finished: Path, copy_run: CopyRun) -> None:
    found = evaluate.run(finished)
    text = "\n".join(table_lines(found))
    assert found.predictions is not None
    numbers = [f"{found.predictions.top1:.2f}", f"{found.predictions.calibration_error:.2f}"]
    for probes in found.embeddings.values():
        numbers += [f"{probes.knn:.2f}", f"{probes.linear:.2f}"]
    for agreed in found.graphs.values():
        numbers += [f"{getattr(agreed, field.name):.3f}" for field in fields(agreed)]
    numbers += [f"{found.cost.parameters:,}", f"{found.cost.macs:,}"]
    numbers += [f"{latency.milliseconds:.2f} ms" for latency in found.cost.latency]
    assert [number for number in numbers if number not in text] == []
    assert "left out" not in text
    bare = "\n".join(table_lines(evaluate.run(copy_run(dataset__test=None))))
    assert "graphs: quickstart has no dataset.test" in bare
