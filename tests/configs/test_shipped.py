"""Every shipped configuration loads, alone and joined, and says what the paper says."""

from itertools import product
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import ArchiveSource, HubSource, ParquetSource
from egapipe.pipeline.config.files import description, is_part, read_tree, shipped
from egapipe.pipeline.config.teachers import OpenClipTeacher, TransformersTeacher
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import distill, extract
from egapipe.stages.distill.students import build_student, tap_shapes
from tests.markdown import blocks, page

# Data set -> side of its images.
DATASETS = {"cifar100": 32, "cifar100-hub": 32, "stl10": 96, "tinyimagenet": 64}
HUB = {
    "cifar100-hub": ("uoft-cs/cifar100", "test", "img", "fine_label"),
}
TEACHERS = {
    "clip-vit-b32": "openai/clip-vit-base-patch32",
    "clip-vit-b16": "openai/clip-vit-base-patch16",
    "clip-rn101": "RN101",
    "dinov2-small": "facebook/dinov2-small",
    "dinov2-base": "facebook/dinov2-base",
}
# Student -> its features and learning rate.
STUDENTS = {"resnet8x4": (256, 0.05), "shufflenet_v1": (960, 0.01), "vgg13": (512, 0.05)}
# Experiments beside the paper's.
OTHERS = {"quickstart", "cifar100-sscd", "cifar100-imgfocus", "cifar100-efficientnet"}
HEADS = ("simultaneous", "sequential")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "configs.md"


def student_part(dataset: str, student: str) -> str:
    """The file of a student for the images of a data set."""
    return f"{student}-64" if student == "vgg13" and DATASETS[dataset] > 32 else student


def check_protocol(config: Config) -> None:
    """paper.md's protocol, number by number."""
    distill, views = config.distill, config.views
    assert (distill.epochs, distill.batch_size) == (240, 64)
    assert (distill.milestones, distill.decay) == ((150, 180, 210), 0.1)
    assert (distill.momentum, distill.weight_decay) == (0.9, 5e-4)
    assert (distill.head.dim, distill.head.lr) == (256, 0.01)
    assert distill.ce_weight == 1
    assert distill.objective.model_dump(exclude_none=True).keys() == {"ega"}
    ega = distill.objective.ega
    assert ega is not None
    assert (ega.weight, ega.node_weight, ega.edge_weight) == (1, 0.8, 0.24)
    assert distill.normalize is None  # the teacher's
    assert distill.student_view == "independent"
    assert distill.image_size is None
    assert views.count == 4
    for plan in (distill.augment, views):
        assert (plan.crop, plan.padding, plan.flip) == ("pad", 4 / 32, 0.5)


def test_every_shipped_file_has_a_place_here() -> None:
    known = {*DATASETS, *TEACHERS, *STUDENTS, *HEADS, "vgg13-64", "common", "paper"}
    known |= {"objectives", "grids", "proof", "sskd", "stkd", "dogo", "alone"}
    assert set(shipped()) == known | OTHERS
    assert {name for name in shipped() if not is_part(name)} == {*DATASETS, *OTHERS}


@pytest.mark.parametrize("name", shipped())
def test_each_is_described_in_one_line_and_in_the_documentation(name: str) -> None:
    assert 10 < len(description(name)) < 90
    assert description(name).endswith(".")
    assert f"`{name}`" in DOCS.read_text()


@pytest.mark.parametrize("name", [name for name in shipped() if not is_part(name)])
def test_an_experiment_loads_alone(name: str) -> None:
    assert load_config(name).name == name


@pytest.mark.parametrize("dataset", DATASETS)
def test_with_the_paper_a_data_set_has_the_papers_first_column(dataset: str) -> None:
    config = load_config(f"{dataset}+paper")
    check_protocol(config)
    assert config.teacher.model == TEACHERS["clip-vit-b32"]
    assert (config.distill.student.name, config.distill.lr) == ("resnet8x4", 0.05)
    assert config.distill.head.mode == "simultaneous"


@pytest.mark.parametrize(
    ("dataset", "teacher", "student", "head"), [*product(DATASETS, TEACHERS, STUDENTS, HEADS)]
)
def test_every_combination_of_the_paper(
    dataset: str, teacher: str, student: str, head: str
) -> None:
    parts = f"{dataset}+{teacher}+{student_part(dataset, student)}+paper+{head}"
    config = load_config(parts)
    assert config.name == f"{dataset}-{teacher}"
    check_protocol(config)
    assert config.dataset == load_config(dataset).dataset
    assert config.teacher.model == TEACHERS[teacher]
    assert config.distill.student.name == student
    assert config.distill.lr == STUDENTS[student][1]
    assert config.distill.head.mode == head


@pytest.mark.parametrize(("dataset", "student"), [*product(["cifar100", "tinyimagenet"], STUDENTS)])
def test_the_students_build_at_the_size_of_the_images(dataset: str, student: str) -> None:
    settings = load_config(f"{dataset}+{student_part(dataset, student)}").distill.student
    side = DATASETS[dataset]
    channels, height, width = tap_shapes(
        build_student(settings.name, settings.args), ["maps"], (side, side)
    )["maps"]
    assert channels == STUDENTS[student][0]
    assert student != "vgg13" or (height, width) == (4, 4)


def test_without_a_teacher_two_students_learn_from_each_other(tmp_path: Path) -> None:
    """Neither labels nor features of any network are in it."""
    sets = [f"store.url={tmp_path}/stores", f"runs={tmp_path}/runs", "distill.epochs=1"]
    config = load_config("quickstart+dogo+alone", sets)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    assert FeatureStore.open(config.store_url("train")).manifest.outputs == {"embedding": (12,)}
    assert distill.run(config).summary["objective"].keys() == {"dogo"}


def test_another_student_forgets_the_arguments_of_the_one_before() -> None:
    config = load_config("tinyimagenet+vgg13-64+resnet8x4")
    assert config.distill.student.args == {}
    assert load_config("cifar100+paper+shufflenet_v1+vgg13").distill.lr == 0.05


@pytest.mark.parametrize("dataset", DATASETS)
def test_alone_a_data_set_has_the_default_recipe(dataset: str) -> None:
    config = load_config(dataset)
    assert config.distill.recipe == "default"
    assert (config.distill.lr, config.distill.schedule) == (0.1, "cosine")
    assert config.distill.objective.model_dump(exclude_none=True).keys() == {"ega", "kd"}
    assert config.views == load_config(f"{dataset}+paper").views
    assert config.teacher.model == TEACHERS["clip-vit-b32"]


@pytest.mark.parametrize("dataset", HUB)
def test_data_sets_of_the_hub_by_name(dataset: str) -> None:
    name, split, image, label = HUB[dataset]
    config = load_config(dataset).dataset
    for source, wanted in ((config.train, "train"), (config.test, split)):
        assert isinstance(source, HubSource)
        assert (source.name, source.split) == (name, wanted)
        assert (source.image_column, source.label_column) == (image, label)


@pytest.mark.parametrize("dataset", ["stl10", "tinyimagenet"])
def test_official_archives_by_name(dataset: str) -> None:
    config = load_config(dataset)
    for split in config.splits():
        source = config.source(split)
        assert isinstance(source, ArchiveSource)
        assert (source.name, source.split) == (dataset, split)


def test_stl10_learns_from_its_unlabelled_images_too() -> None:
    config = load_config("stl10")
    assert config.training_splits() == ["train", "unlabelled"]
    assert config.distill.unlabelled_ratio == 1
    alone = load_config("stl10", ["dataset.unlabelled=[]", "distill.unlabelled_ratio=null"])
    assert alone.training_splits() == ["train"]
    assert load_config("tinyimagenet").training_splits() == ["train"]


def test_cifar100_reads_local_files() -> None:
    for split in ("train", "test"):
        source = load_config("cifar100").source(split)
        assert isinstance(source, ParquetSource)
        assert (source.files, source.split) == ([f"data/cifar100/{split}.parquet"], split)


def test_rn101_comes_from_open_clip_and_all_others_from_transformers() -> None:
    for teacher in TEACHERS:
        config = load_config(f"cifar100+{teacher}").teacher
        if teacher == "clip-rn101":
            assert isinstance(config, OpenClipTeacher)
            assert config.pretrained == "openai"
        else:
            assert isinstance(config, TransformersTeacher)


def test_the_parts_repeat_nothing_of_the_protocol() -> None:
    """A teacher may set its name, nobody the rest."""
    allowed = {"name", "teacher", "distill"}
    for part in (*TEACHERS, *STUDENTS, *HEADS, "vgg13-64"):
        tree = read_tree(part)
        assert set(tree) <= allowed
        assert set(tree.get("distill", {})) <= {"student", "head"}


def test_the_documentations_commands_and_file_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DOCS.read_text()
    commands = [line.split() for line in text.splitlines() if line.startswith("    egapipe ")]
    assert len(commands) >= 5
    for words in commands:
        sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        assert load_config(words[words.index("-c") + 1], sets)
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    config = load_config("mine.yaml")
    assert (config.name, config.distill.epochs) == ("mine", 100)
    assert config.distill.objective.model_dump(exclude_none=True).keys() == {"ega", "kd"}


def test_all_objectives_are_compared() -> None:
    from egapipe.pipeline.config.objectives import ObjectiveConfig
    from egapipe.stages.compare.comparison import plan

    cells = plan(load_config("cifar100+objectives+grids+sskd", ["teacher.grid=4"]))
    alone = {
        variant: tree.distill.objective.model_dump(exclude_none=True)
        for (_, variant, _), tree in cells.items()
    }
    # Two of them compare two views of a row, and have no need of a store; one needs pairs of rows.
    names = ObjectiveConfig.model_fields.keys() - {"custom", "dogo", "igsd", "embeddistill"}
    assert names <= alone.keys()
    # What compares turned images does not hold the plain ones.
    beside = {"sskd": {"kd"}}
    assert all(alone[name].keys() == {name} | beside.get(name, set()) for name in names)
    assert alone["ce"] == {}


def test_the_experiments_behind_the_recipe_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that docs/recipes.md says were run."""
    from egapipe.stages.compare.comparison import plan

    monkeypatch.chdir(tmp_path)
    texts = [text for language, text in blocks(page("docs/recipes.md")) if language == "yaml"]
    for text in texts:
        Path(text.split()[1].rstrip(",")).write_text(text)
    chosen = load_config("choose.yaml")
    assert len(plan(chosen)) == len(chosen.compare.variants)
    assert chosen.dataset.validation is not None


@pytest.mark.parametrize("name", ["cifar100-sscd", "cifar100-efficientnet", "cifar100-imgfocus"])
def test_the_proof_of_the_recipe_has_its_settings_alone(name: str) -> None:
    """Of those that a training learns by: what nobody sets is the default recipe's."""
    from egapipe.stages.compare.comparison import plan

    config = load_config(f"{name}+proof")
    bare = load_config(name, ["distill.student.name=resnet8", "distill.epochs=8"]).distill
    same = {"precision", "threads", "eval_epochs", "checkpoint_epochs"}
    assert config.distill.model_dump(exclude=same) == bare.model_dump(exclude=same)
    assert config.dataset.validation is None
    assert len(plan(config)) == 9
    # The objective that nobody names is the last variant's.
    default = config.distill.objective if name == "cifar100-sscd" else None
    last = list(plan(config).values())[2].distill.objective
    assert default in (None, last)
