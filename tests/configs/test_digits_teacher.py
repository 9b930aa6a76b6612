"""The quickstart's teacher: it loads from the package, and is what its card says."""

import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits
from transformers import AutoImageProcessor, AutoModel, ResNetModel

from egapipe.configs.teachers.digits import probes, recipe

FOLDER = Path(str(files("egapipe.configs.teachers.digits")))
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
SHIPPED = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture(scope="module")
def encoder():
    return AutoModel.from_pretrained(FOLDER, use_safetensors=True).eval()


@pytest.fixture(scope="module")
def unlabelled():
    images = recipe.enlarge(recipe.read_digits()[0].images)
    return images, recipe.Pixels.of(images)


def read_table(text: str) -> dict[str, list[float]]:
    """Rows `| name | 1.0 | 2.0 |` of a Markdown table."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    return {name: [float(value) for value in values] for name, *values in rows}


def test_the_folder_holds_safe_small_files_only():
    shipped = {p.name: p for p in FOLDER.iterdir() if p.is_file() and p.suffix != ".py"}
    assert set(shipped) == SHIPPED
    assert shipped["model.safetensors"].stat().st_size <= 2_000_000


def test_the_weights_are_all_there_and_float32(encoder):
    assert isinstance(encoder, ResNetModel)
    with safe_open(FOLDER / "model.safetensors", framework="pt") as stored:
        assert set(stored.keys()) == set(encoder.state_dict())
    parameters = list(encoder.parameters())
    assert {p.dtype for p in parameters} == {torch.float32}
    assert sum(p.numel() for p in parameters) == 311_200


def test_the_recipe_sees_what_the_image_processor_makes(unlabelled):
    """Training and extraction must agree on the pixels, else the card's figures are another's."""
    images, pixels = unlabelled
    processor = AutoImageProcessor.from_pretrained(FOLDER)
    rgb = [
        Image.fromarray(np.repeat(i[:, :, None], 3, 2)) for i in recipe.read_digits()[0].images[:64]
    ]
    seen = processor(rgb, return_tensors="pt").pixel_values
    expected = ((images[:64] - pixels.mean) / pixels.std).expand(-1, 3, -1, -1)
    torch.testing.assert_close(seen, expected)


def test_the_preprocessor_config_resizes_without_cropping():
    config = json.loads((FOLDER / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert config["size"] == {"height": 32, "width": 32}
    assert config["resample"] == Image.Resampling.BICUBIC
    assert "do_center_crop" not in config


def test_the_test_split_is_the_last_360_rows():
    train, test = recipe.read_digits()
    assert (len(train.images), len(test.images)) == (1437, 360)
    bunch = load_digits()
    assert np.array_equal(test.labels, bunch.target[-360:])
    assert np.abs(test.images / (255 / 16) - bunch.images[-360:]).max() < 1 / 16


def test_embeddings_are_finite_spread_and_fit_float16(unlabelled):
    rows = recipe.embeddings(FOLDER, recipe.read_digits()[0].images)
    assert rows.shape == (1437, 128)
    assert rows.dtype == np.float16
    assert np.isfinite(rows).all()
    assert rows.astype(np.float64).std(axis=0).min() > 0.01
    assert np.linalg.matrix_rank(rows.astype(np.float64)) == 128


@pytest.fixture(scope="module")
def scores():
    return recipe.measure()


def test_the_card_says_what_is_measured(scores):
    card = read_table(CARD)
    fresh = read_table(probes.table(scores))
    assert card.keys() == fresh.keys()
    assert len(card) == 3
    for name, values in fresh.items():
        # One test image of 360, which another processor's last bits may turn over.
        assert card[name] == pytest.approx(values, abs=100 / 360), name


def test_the_cards_front_matter_is_what_the_hub_reads():
    front = yaml.safe_load(CARD.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "image-feature-extraction"
    (result,) = front["model-index"][0]["results"]
    figures = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert figures == {name: teacher for name, (_, teacher) in read_table(CARD).items()}


def test_the_cards_example_runs(encoder):
    (example,) = re.findall(r"```python\n(.*?)```", CARD, flags=re.DOTALL)
    names = {}
    exec(example, names)  # noqa: S102 the example of a file that ships with the code
    expected = recipe.embeddings(FOLDER, recipe.read_digits()[0].images[:1])
    embedding = names["embedding"].detach().numpy()
    assert embedding.shape == (1, 128)
    np.testing.assert_allclose(embedding, expected, atol=2e-3)


def test_ten_labels_a_class_are_worth_more_on_the_teacher_than_on_pixels(scores):
    assert scores["this teacher"].linear >= 97
    assert scores["this teacher"].few_labels >= scores["raw pixels"].few_labels + 8


def test_training_learns_and_is_a_function_of_the_seed(unlabelled, capsys):
    images, pixels = unlabelled
    state = torch.get_rng_state()
    once, again, other = (recipe.train(images[:512], pixels, s, epochs=2) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert not once.training
    first, second, third = (list(m.state_dict().values()) for m in (once, again, other))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, third, strict=True))


def test_what_is_saved_comes_back_with_the_same_embeddings(unlabelled, tmp_path):
    images, pixels = unlabelled
    trained = recipe.train(images[:256], pixels, epochs=1)
    recipe.save(trained, pixels, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == SHIPPED - {"README.md"}
    shipped_processor = (FOLDER / "preprocessor_config.json").read_text(encoding="utf-8")
    assert (tmp_path / "preprocessor_config.json").read_text(encoding="utf-8") == shipped_processor
    with torch.inference_mode():
        expected = recipe.embed(trained, images[:32], pixels).numpy().astype(np.float16)
    rows = recipe.embeddings(tmp_path, recipe.read_digits()[0].images[:32])
    np.testing.assert_array_equal(rows, expected)


def test_augmented_digits_stay_images_and_differ(unlabelled):
    images, _ = unlabelled
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, two = recipe.augment(images[:128]), recipe.augment(images[:128])
    assert one.shape == (128, 1, 32, 32)
    assert one.min() >= 0
    assert one.max() <= 1
    assert (one - two).abs().mean(dim=(1, 2, 3)).min() > 0.01


def test_nt_xent_by_hand():
    """Eq. 1 of arXiv 2002.05709, written as the paper does: a sum over pairs."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    z = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
    total = 0.0
    for i in range(10):
        j = (i + 5) % 10
        others = sum(torch.exp(z[i] @ z[k] / 0.5) for k in range(10) if k != i)
        total += -torch.log(torch.exp(z[i] @ z[j] / 0.5) / others)
    torch.testing.assert_close(recipe.nt_xent(a, b, temperature=0.5), total / 10)


def test_label_draws_are_balanced_and_repeatable():
    labels = recipe.read_digits()[0].labels
    draws = probes.label_draws(labels)
    assert len(draws) == 5
    for rows in draws:
        assert len(set(rows.tolist())) == 100
        assert np.bincount(labels[rows]).tolist() == [10] * 10
    assert not np.array_equal(draws[0], draws[1])
    assert all(np.array_equal(a, b) for a, b in zip(draws, probes.label_draws(labels), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "nothing to do"), (["--out", "a-file"], "is a file: name a folder")],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    arguments, message, tmp_path, monkeypatch, capsys
):
    (tmp_path / "a-file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        recipe.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
