"""Teachers that learn beside the student: its peers, and its own average."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.forward import Learning, Live
from egapipe.stages.distill.model.measured import live_average
from egapipe.stages.distill.model.precision import loss_scaler
from egapipe.stages.distill.model.student import Head, Seen, Student, TeacherHead
from egapipe.stages.distill.objectives import (
    REGISTRY,
    Facts,
    WeightedSum,
    build_objective,
    dogo_loss,
    kd_loss,
    ntxent_loss,
    pkt_loss,
)
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.gradient import OnePass, TwoPasses
from egapipe.stages.distill.training.learner import make_learner
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig, configured, extracted
from tests.stages.distill.objectives.samples import ON_FEATURES

CPU = torch.device("cpu")
ALONE = World.alone(CPU)
IDLE = loss_scaler(CPU, torch.float32)
ROWS, DIM, CLASSES, TEACHER = 24, 16, 5, 20
LABELS = torch.arange(60) % (CLASSES + 1) - 1
ONLINE = [name for name, kind in REGISTRY.items() if not kind.fitted]
MAPS = {"maps": ((6, 4, 4), (6, 4, 4))}


class Small(nn.Module):
    """Images to maps and features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.width = nn.Linear(6, width)

    def forward_maps(self, images: Tensor) -> Tensor:
        maps: Tensor = self.stem(images)
        return maps

    def features_of(self, maps: Tensor) -> Tensor:
        features: Tensor = self.width(maps.mean(dim=(2, 3)).relu())
        return features

    def forward(self, images: Tensor) -> Tensor:
        return self.features_of(self.forward_maps(images))


def student(width: int) -> Student:
    normalize = Normalize(mean=(0.5,) * 3, std=(0.5,) * 3)
    return Student(Small(width), Head(width, DIM, CLASSES), normalize)


def options(name: str) -> ObjectiveConfig:
    more = {
        "crd": {"negatives": 16},
        **{one: {"features": "maps"} for one in ON_FEATURES},
        "dreamteacher": {"features": "maps", "channels": 8},
        "dogo": {"hidden": 12, "dim": 8},
    }
    return ObjectiveConfig.model_validate({name: more.get(name, {})})


def online(names: list[str], side: str) -> Distillation:
    """Two students of other widths, or one and its average, with objectives on each other."""
    torch.manual_seed(0)
    config = ObjectiveConfig.model_validate(
        {n: o for name in names for n, o in options(name) if o is not None}
    )
    sides = dict.fromkeys(names, side)

    def objective(other: int) -> WeightedSum:
        live = Facts(DIM, DIM, LABELS, shapes=MAPS, teacher_features=other, views_per_row=2, seed=3)
        return build_objective(config, live, sides=sides, live=live)  # type: ignore[arg-type]

    peers = side == "peers"
    own = student(18)
    other = Learning(student(22), objective(18)) if peers else None
    live = Live(
        {"other": other} if other is not None else {},
        None if peers else live_average(own),
        {"maps": ("stem", "stem")},
    )
    head = TeacherHead(TEACHER, DIM, CLASSES)
    return Distillation(
        own,
        head,
        objective(22 if peers else 18),
        ce_weight=1.0,
        precision=torch.float32,
        world=ALONE,
        repeats=True,
        neighbours=torch.randint(-1, len(LABELS), (len(LABELS), 9)),
        live=live,
    )


def batch(seed: int = 0) -> Batch:
    """Two views of each row."""
    made = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(LABELS), generator=made)[:ROWS].repeat_interleave(2)
    return Batch(
        images=torch.randint(0, 256, (2 * ROWS, 3, 8, 8), generator=made, dtype=torch.uint8),
        features=torch.randn(2 * ROWS, TEACHER, generator=made),
        labels=LABELS[rows],
        rows=rows,
    )


@pytest.mark.parametrize("side", ["peers", "average"])
@pytest.mark.parametrize("name", ONLINE)
def test_every_objective_that_needs_no_store_has_live_teachers(name: str, side: str) -> None:
    model = online([name], side)
    losses = OnePass(model, ALONE)(batch(), IDLE)
    assert losses.total.isfinite()
    terms = [name, *([f"peers.other.{name}"] if side == "peers" else [])]
    for term in terms:
        assert losses.parts[term].isfinite()
    gradients = [p.grad for p in model.student.backbone.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", ["kd", "ega", "dogo", "fitnet", "at"])
def test_no_gradient_goes_into_the_teacher(name: str) -> None:
    """What a student learns from its peer moves the peer by nothing, and the other way round."""
    model = online([name], "peers")
    outputs = model.outputs(batch())
    alone = model.losses(outputs, batch()).total
    moved = torch.autograd.grad(alone, list(model.peers.parameters()), allow_unused=True)
    model.objective.weights = {name: 0.0}
    without = model.losses(model.outputs(batch()), batch()).total
    still = torch.autograd.grad(without, list(model.peers.parameters()), allow_unused=True)
    for one, two in zip(moved, still, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(one, two)


def test_two_students_learn_by_the_formulas() -> None:
    model = online(["dogo", "kd", "pkt"], "peers")
    seen = batch()
    outputs = model.outputs(seen)
    losses = model.losses(outputs, seen)
    own, other = outputs.students.values()
    learning = list(model.learning.values())
    projected = [
        one.objective.objectives["dogo"].projected(o.node)
        for one, o in zip(learning, (own, other), strict=True)
    ]
    (s, s2), (p, p2) = ((z[0::2], z[1::2]) for z in projected)
    close = torch.testing.assert_close
    for prefix, mine, theirs, z, peer in (
        ("", own, other, (s, s2), (p, p2)),
        ("peers.other.", other, own, (p, p2), (s, s2)),
    ):
        assert isinstance(mine, Seen)
        close(losses.parts[f"{prefix}kd"], kd_loss(mine.logits, theirs.logits).detach())
        close(losses.parts[f"{prefix}pkt"], pkt_loss(mine.node, theirs.node).detach())
        close(losses.parts[f"{prefix}dogo"], (ntxent_loss(*z) + dogo_loss(*z, *peer)).detach())
        terms = ("ce", "kd", "pkt", "dogo")
        total = torch.stack([losses.parts[f"{prefix}{term}"] for term in terms]).sum()
        close(losses.parts[f"{prefix}loss"], total)


@pytest.mark.parametrize("side", ["peers", "average"])
def test_parts_of_a_batch_have_the_gradient_of_all_of_it(side: str) -> None:
    """With students that normalise by running statistics: those of a part are others."""
    names = ["dogo", "kd", "unic", "fitnet"]
    one, two = (online(names, side) for _ in range(2))
    for model in (one, two):
        for learning in model.learning.values():
            learning.student.backbone.eval()
        if model.average is not None:
            model.average.eval()
    OnePass(one, ALONE)(batch(), IDLE)
    TwoPasses(two, ALONE, 10)(batch(), IDLE)
    for (name, parameter), other in zip(one.named_parameters(), two.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-3, atol=1e-5)


def test_the_average_that_teaches_is_the_one_that_is_saved() -> None:
    """It normalises over the batch, and its running statistics are averages of the student's."""
    model = online(["kd"], "average")
    config = DistillConfig(ema_decay=0.5, teacher="average", objective=options("kd"))
    learner = make_learner(model, config, CPU)
    expected = {k: v.clone().double() for k, v in model.student.state_dict().items()}
    gradient = OnePass(model, ALONE)
    for step in range(3):
        gradient(batch(step), IDLE)
        learner.set_rate(0.05)
        learner.step(config, 0.5)
        for key, value in model.student.state_dict().items():
            expected[key] = 0.5 * expected[key] + 0.5 * value.double()
    assert model.average is not None
    assert learner.average is not None
    found = model.average.state_dict()
    for key, value in expected.items():
        assert torch.equal(found[key], learner.average.state_dict()[key])
        if found[key].is_floating_point():
            torch.testing.assert_close(found[key].double(), value, rtol=1e-5, atol=1e-6)
    assert not any(p.grad is not None for p in model.average.parameters())
    assert not any("average" in name for name in model.state_dict())


def test_what_is_frozen_of_a_student_is_frozen_of_its_average() -> None:
    own = student(18)
    own.backbone.stem.requires_grad_(False)  # type: ignore[union-attr]
    average = live_average(own)
    modes = {name: part.training for name, part in average.backbone.named_modules()}
    assert not modes["stem.1"]
    assert modes["width"]


# ------------------------------------------------------------------------------------ a training

PEERS = ["distill.peers={small: {name: resnet8}}", "distill.teacher=peers"]


def test_a_training_measures_its_peers_and_saves_them(quick: MakeConfig) -> None:
    config = quick(
        *PEERS,
        "distill.epochs=2",
        "distill.objective={kd: 1.0, ega: {weight: 0.5, teacher: store}}",
    )
    report = distill.run(config)
    line = read_metrics(RunFolder(report.run))[-1]
    assert {"train/kd", "train/peers.small.kd", "train/peers.small.ega"} <= set(line)
    assert line["test/peers.small.top1"] == report.summary["peers.small.top1"] > 30
    assert distill.load_student(RunFolder(report.run)).accuracy().top1 == report.summary["top1"]


def test_alignahead_is_the_lines_in_the_documentation(quick: MakeConfig) -> None:
    """Each layer beside the one before it of the other, in one training of both."""
    page = Path(__file__).parents[3] / "docs" / "systems.md"
    [lines] = re.findall(r"```yaml\n(distill:.+?)```", page.read_text("utf-8"), re.DOTALL)
    distilled = yaml.safe_load(lines)["distill"]
    sets = [f"distill.{key}={json.dumps(value)}" for key, value in distilled.items()]
    config = quick("distill.epochs=1", *sets)
    assert dict(config.distill.sides) == {"lsp": "peers"}
    line = read_metrics(RunFolder(distill.run(config).run))[-1]
    assert line["train/lsp"] > 0
    assert line["train/peers.twin.lsp"] > 0


def test_students_learn_without_any_label(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    for number, pixels in enumerate(load_digits().images[:60]):
        (tmp_path / "images").mkdir(exist_ok=True)
        image = Image.fromarray((pixels * 15).astype("uint8"))
        image.save(tmp_path / "images" / f"{number}.png")
    images = [f"dataset.train={{kind: folder, path: {tmp_path / 'images'}}}", "dataset.test=null"]
    make = configured(extracted(tmp_path / "store", *images), tmp_path, *images)
    few = ("distill.epochs=2", "distill.labels_per_class=null", "distill.batch_size=20")
    views = ("distill.views_per_row=2", "distill.ce_weight=0", "distill.recipe=default")
    for chosen in (
        ["distill.objective={dogo: {hidden: 16, dim: 8}}", *PEERS],
        ["distill.objective={igsd: 1}", "distill.teacher=average", "distill.ema_decay=0.9"],
    ):
        report = distill.run(make(*few, *views, *chosen))
        first, last = (read_metrics(RunFolder(report.run))[i]["train/loss"] for i in (0, -1))
        assert last < first
    with pytest.raises(UsageError, match=r"without labels set distill\.ce_weight=0"):
        prepare(make(*few), ALONE)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["distill.teacher=peers"], "name one in peers"),
        (["distill.teacher=average"], "set ema_decay"),
        ([*PEERS, "distill.graph_batch=900"], "graph_batch remembers"),
        (["distill.peers={student: {name: resnet8}}"], "peers.student"),
        ([*PEERS, "distill.objective={kd: {teacher: average}}", "distill.ema_decay=0.9"], "peers"),
        ([*PEERS, "distill.objective={rrd: {}}"], "begins with what it finds in stored"),
        ([*PEERS, "distill.objective={dogo: {}}"], "set distill.views_per_row to 2"),
        (
            [*PEERS, "distill.objective={dogo: auto}", "distill.views_per_row=2"],
            "projects them before",
        ),
        ([*PEERS, "distill.head.dim=null", "distill.objective={kd: 1}"], "set distill.head.dim"),
    ],
)
def test_what_cannot_teach_is_one_line(quick: MakeConfig, sets: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prepare(quick(*sets), ALONE)


def test_a_configuration_without_live_teachers_is_what_it_was(tmp_path: Path) -> None:
    config: Config = load_config("quickstart", [f"store.url={tmp_path}"])
    assert set(config.distill.sides.values()) <= {"store"}
    assert config.distill.live_pairs == {}
