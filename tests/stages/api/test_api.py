"""`import egapipe`: plain names, configurations of any form, results as tables."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import egapipe
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset

QUICK = {"distill.epochs": 2, "distill.threads": 1, "views.count": 2}


def test_all_names_are_there_and_no_others_are() -> None:
    assert egapipe.__version__ == version("egapipe")
    for name in egapipe.__all__:
        assert getattr(egapipe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        egapipe.distil  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, egapipe; print(len(sys.modules)); egapipe.load_config(); print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    few, modules = found.stdout.splitlines()
    assert int(few) < 300
    assert not {"torch", "ray", "pyarrow", "numpy", "zarr"} & set(modules.split())


def test_a_configuration_may_be_a_name_a_file_text_a_dict_or_another(tmp_path: Path) -> None:
    tree = {"base": "quickstart", "distill": {"epochs": 3}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(tree), "utf-8")
    expected = egapipe.load_config(file)
    assert expected.distill.epochs == 3
    named = egapipe.load_config("quickstart", {"distill.epochs": 3})
    for given in (str(file), tree, yaml.safe_dump(tree), expected):
        assert egapipe.load_config(given) == expected
    assert named == expected == egapipe.load_config(None, ["distill.epochs=3"])
    # What is in a configuration may be a path, and stands for itself.
    odd = tmp_path / "a $HOME"
    assert egapipe.load_config(tree, {"runs": odd}).runs == str(odd).replace("$", "$$")


@pytest.mark.parametrize(
    ("given", "overrides", "message"),
    [
        ({"distil": {}}, {}, "distill"),
        ({"base": 3}, {}, "base must be"),
        ("- a\n- b\n", {}, "must be a mapping"),
        ("a: [\n", {}, "not usable YAML"),
        ("quickstart", "distill.epochs=3", "give a list"),
        ("quickstart", {"distill.epochs.x": 3}, "not a section"),
        ("no such", {}, "no config"),
    ],
)
def test_a_mistake_is_one_line(given: object, overrides: object, message: str) -> None:
    with pytest.raises(egapipe.UsageError, match=message) as raised:
        egapipe.load_config(given, overrides)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_result_of_egapipe_as_a_base_names_no_code(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}", "utf-8")
    (tmp_path / "config.yaml").write_text(
        "base: quickstart\ndistill: {student: {name: 'os:system'}}\n", "utf-8"
    )
    for given in (tmp_path / "config.yaml", {"base": str(tmp_path / "config.yaml")}):
        with pytest.raises(egapipe.UsageError, match="trust_remote_code=True"):
            egapipe.load_config(given)


def test_from_a_configuration_to_the_classes_of_a_picture(
    digits_store: str, tmp_path: Path
) -> None:
    given = {"base": "quickstart", "runs": str(tmp_path / "runs"), "store": {"url": digits_store}}
    stores = egapipe.extract(given, QUICK, local=True)
    assert [row["split"] for row in stores.rows] == ["train", "test"]
    done = egapipe.distill(given, QUICK)
    assert done.to_pandas()["epoch"].tolist() == [0, 1]
    assert done.report.top1 == pytest.approx(done.to_pandas()["test/top1"].iloc[-1])
    student = egapipe.load_student(done.where, device="cpu")
    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    pictures = [digits.image(row) for row in range(4)]
    pictures[0].save(tmp_path / "digit.png")
    forms = [tmp_path / "digit.png", pictures[0], np.asarray(pictures[0])]
    by_form = [one.classes for one in student.predict(forms, top=3)]
    assert by_form[0] == by_form[1] == by_form[2]
    table = egapipe.predict(student, np.stack([np.asarray(one) for one in pictures])).to_arrow()
    assert table.column("path").to_pylist() == ["0", "1", "2", "3"]
    assert len(table.column("nodes")[0]) == 64


def test_what_is_no_picture_is_said_of_it_alone(finished: Path) -> None:
    good = np.zeros((8, 8, 3), np.uint8)
    clear = Image.fromarray(np.zeros((8, 8, 4), np.uint8))
    bad = [good.astype(np.float32), good[..., :2], good[:0]]
    [first, *errors, last] = egapipe.load_student(finished).predict([good, *bad, clear])
    assert (first.error, last.error) == ("", "")
    # What is see-through is white, as in a file.
    white = egapipe.load_student(finished).predict([np.full((8, 8), 255, np.uint8)])
    assert last.nodes == pytest.approx(white[0].nodes, abs=1e-5)
    for one in errors:
        assert "must be uint8" in one.error or "no pixels" in one.error


def test_a_comparison_is_a_table_of_its_trainings(digits_store: str, tmp_path: Path) -> None:
    given = {
        "base": "quickstart",
        "runs": str(tmp_path / "runs"),
        "store": {"url": digits_store},
        "compare": {"variants": {"ce": {"distill.objective": {}}, "ega": {}}, "seeds": [0]},
    }
    done = egapipe.compare(given, {**QUICK, "distill.epochs": 1})
    table = done.to_pandas()
    assert table["variant"].tolist() == ["ce", "ega"]
    assert table["top1"].between(0, 100).all()
    assert all(Path(run, "summary.json").is_file() for run in table["run"])
    assert Path(str(done.where)).is_dir()


@pytest.mark.slow
def test_a_sweep_is_a_table_of_its_trials(digits_store: str, tmp_path: Path) -> None:
    """Slow: a search on Ray Tune."""
    given = {
        "base": "quickstart",
        "runs": str(tmp_path / "runs"),
        "store": {"url": digits_store},
    }
    space = {"distill.objective.ega.weight": {"choice": [0.5, 1.0]}}
    few = {**QUICK, "distill.epochs": 1, "sweep.space": space, "sweep.samples": 2}
    done = egapipe.sweep(given, few)
    table = done.to_arrow()
    assert table.num_rows == len(done.report.trials)
    assert "changes.distill.objective.ega.weight" in table.column_names
