"""Students that learn queries and documents of pairs, with labels and without."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill, extract
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig, configured, extracted
from tests.stages.distill.pairs import write_pairs
from tests.stages.distill.test_training import weights

ALONE = World.alone(torch.device("cpu"))
ONLY = [
    *("distill.sampler=pairs", "distill.edges=pairs", "distill.ce_weight=0"),
    "distill.objective={embeddistill: {temperature: 0.1}}",
]


def pairs_of(file: Path, rows: int = 1400) -> Path:
    """Every second row asks for the one behind it."""
    keys = [f"digits/{row:04d}" for row in range(rows)]
    return write_pairs(file, list(zip(keys[::2], keys[1::2], strict=True)))


@pytest.fixture
def make(quick: MakeConfig, tmp_path: Path) -> MakeConfig:
    file = pairs_of(tmp_path / "pairs.parquet")
    return lambda *sets: quick(f"dataset.pairs={file}", "distill.ema_decay=null", *ONLY, *sets)


@pytest.fixture
def unlabelled(tmp_path: Path) -> MakeConfig:
    """Images that have no class, of which every second asks for the next."""
    from sklearn.datasets import load_digits

    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(load_digits().images[:240]):
        image = Image.fromarray((pixels * 15).astype("uint8"))
        image.save(tmp_path / "images" / f"{number:03d}.png")
    images = [f"dataset.train={{kind: folder, path: {tmp_path / 'images'}}}", "dataset.test=null"]
    stores = extracted(tmp_path / "store", *images)
    few = ("distill.labels_per_class=null", "distill.batch_size=40", "distill.recipe=default")
    keys = [f"{number:03d}.png" for number in range(240)]
    pairs = list(zip(keys[::2], keys[1::2], strict=True))
    file = write_pairs(tmp_path / "pairs.parquet", pairs)
    return configured(stores, tmp_path, *images, f"dataset.pairs={file}", *few)


def test_a_student_of_no_label_learns_to_find_what_the_teacher_finds(
    unlabelled: MakeConfig,
) -> None:
    """Distances and scores come to be the teacher's, of its own documents and of the student's."""
    few = ["distill.epochs=20", "distill.head={dim: 128}", "distill.optimizer=adamw"]
    for name in ("student", "teacher"):
        terms = f"distill.objective={{embeddistill: {{documents: {name}, temperature: 30}}}}"
        report = distill.run(unlabelled(*ONLY, *few, "distill.lr=0.003", terms))
        lines = [line["train/embeddistill"] for line in read_metrics(RunFolder(report.run))]
        assert lines[-1] < 0.8 * lines[0], name
        assert "objectives.embeddistill.projector.weight" not in weights(report.run)


def test_the_lines_in_the_documentation_need_no_label(unlabelled: MakeConfig) -> None:
    page = Path(__file__).parents[3] / "docs" / "systems.md"
    [lines] = re.findall(r"```yaml\n(dataset:.+?)```", page.read_text("utf-8"), re.DOTALL)
    tree = yaml.safe_load(lines)
    assert set(tree) == {"dataset", "distill"}
    sets = [f"distill.{key}={json.dumps(value)}" for key, value in tree["distill"].items()]
    line = read_metrics(RunFolder(distill.run(unlabelled("distill.epochs=1", *sets)).run))[-1]
    assert line["train/embeddistill"] > 0


def test_pairs_of_features_are_learned_without_a_label(
    unlabelled: MakeConfig, tmp_path: Path
) -> None:
    grids = ["teacher.grid=2", f"store.url={tmp_path / 'grids'}", "distill.epochs=4"]
    learned = "distill.objective={dreamteacher: {features: grid, channels: 8}}"
    config = unlabelled("distill.ce_weight=0", *grids, learned)
    extract.run(config, split="train", local=True)
    assert not config.distill.learns_labels
    lines = read_metrics(RunFolder(distill.run(config).run))
    assert lines[-1]["train/dreamteacher"] < lines[0]["train/dreamteacher"]


def test_labels_are_asked_for_where_something_else_stands_on_them(unlabelled: MakeConfig) -> None:
    assert not unlabelled(*ONLY).distill.learns_labels
    for sets in (["distill.ce_weight=0.1"], ["distill.objective={embeddistill: 1, kd: 1}"]):
        config = unlabelled(*ONLY, *sets)
        assert config.distill.learns_labels
        with pytest.raises(UsageError, match=r"has no labelled image: .* or learn by embeddistill"):
            prepare(config, ALONE)


def test_the_nearest_rows_are_no_queries_and_documents(make: MakeConfig) -> None:
    with pytest.raises(UsageError, match=r"embeddistill is of rows that a data set joins: set dat"):
        prepare(make("distill.edges={of: nearest}"), ALONE)


def test_turned_views_have_no_pairs(make: MakeConfig, tmp_path: Path) -> None:
    config = make("views.turns=4", "views.count=4", f"store.url={tmp_path / 'turned'}")
    extracted(tmp_path / "turned", "views.turns=4", "views.count=4")
    config = make(
        *("views.turns=4", "views.count=4", f"store.url={tmp_path / 'turned'}"),
        *("distill.views_per_row=4", "distill.student_view=paired"),
    )
    with pytest.raises(UsageError, match=r"objective\.embeddistill compares rows, and a batch has"):
        prepare(config, ALONE)


def test_live_teachers_have_queries_and_documents_of_their_own(make: MakeConfig) -> None:
    report = distill.run(
        make(
            *("distill.epochs=1", "distill.teacher=peers"),
            *("distill.peers={other: {name: digits_cnn}}", "distill.batch_size=200"),
        )
    )
    line = read_metrics(RunFolder(report.run))[-1]
    assert line["train/embeddistill"] > 0
    assert line["train/peers.other.embeddistill"] > 0


def test_a_student_finds_documents_as_its_teacher_does(make: MakeConfig) -> None:
    """Among the teacher's own 700 documents the student's embedding of a query finds first what the
    teacher's does, before it learns by chance (0.1 % of the queries): it is asymmetric, as wide as
    the teacher, and has no layer in between."""
    config = make(
        *("distill.epochs=20", "distill.head={dim: null}", "distill.batch_size=100"),
        "distill.student={name: 'tests.stages.distill.test_embeddistill:wide'}",
        *("distill.standardize=none", "distill.optimizer=adamw", "distill.lr=0.003"),
        "distill.objective={embeddistill: {documents: teacher, label_weight: 0, temperature: 3}}",
    )
    job = prepare(config, ALONE)
    before = agreement(job, job.model.student)
    assert not [*job.model.objective.parameters()]
    run = RunFolder(distill.run(config).run)
    trained = distill.load_student(run, trust_remote_code=True)
    after = agreement(job, trained.student)
    assert before < 0.01
    assert after > 0.05


def wide() -> torch.nn.Module:
    """As wide as the teacher of the digits."""
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 256), torch.nn.GELU(), torch.nn.Linear(256, WIDTH)
    )


WIDTH = 128


@torch.no_grad()
def agreement(job, student) -> float:
    """The share of queries whose first document, by cosine, is also the teacher's first."""
    links = job.sources.links
    stored = job.sources.features[0]
    queries, documents = (
        F.normalize(stored.take(rows, 0).float()) for rows in (links.sources, links.targets)
    )
    student = student.eval()
    asked = F.normalize(student.features(job.loader.images.clean(links.sources)))
    first = [(one @ documents.T).argmax(dim=1) for one in (queries, asked)]
    return float((first[0] == first[1]).float().mean())
