"""What the README tells a user to type works, on a folder of images that are not square."""

import shutil
from pathlib import Path

import pytest

from tests.markdown import SHIPPED, blocks, page, run_shell, write_photos


def section(heading: str) -> list[tuple[str, str]]:
    """(language, text) of every fenced block below a heading of the README."""
    return blocks(page("README.md").split(f"\n## {heading}\n")[1].split("\n## ")[0])


@pytest.fixture(scope="module")
def after_the_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the section's commands have run. The hub's model is the shipped one."""
    folder = tmp_path_factory.mktemp("mine")
    write_photos(folder / "photos")
    texts = section("Your own images")
    config = next(text for language, text in texts if language == "yaml")
    small = config
    for written, here in (
        ("facebook/dinov2-small", SHIPPED),
        ("epochs: 100", "epochs: 1"),
        ("image_size: 64", "image_size: 32"),
    ):
        assert written in small
        small = small.replace(written, here)
    (folder / "mine.yaml").write_text(small)
    commands = next(text for language, text in texts if language == "sh")
    run_shell(commands, folder, warm=True)
    return folder


def test_the_commands_leave_two_runs_and_whole_stores(after_the_commands: Path) -> None:
    runs = sorted((after_the_commands / "runs" / "mine").glob("*/summary.json"))
    assert len(runs) == 2
    assert (after_the_commands / "stores" / "mine" / "train.zarr" / "failures.parquet").is_file()


def test_the_python_examples_run(
    after_the_commands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.chdir(after_the_commands)
    shutil.copy(next((after_the_commands / "photos" / "test").rglob("*.jpg")), "photo.jpg")
    examples = [text for language, text in section("Your own images") if language == "python"]
    for text in examples:
        names = {"student": torch.randn(8, 16), "teacher": torch.randn(8, 16)}
        exec(text, names)  # noqa: S102
    shown = capsys.readouterr().out
    assert "test/top1" in shown
    assert "photo.jpg [(" in shown
    assert torch.isfinite(names["loss"])


def test_every_objective_is_named_in_readme_and_docs() -> None:
    from egapipe.stages.distill.objectives import REGISTRY

    for where in ("README.md", "docs/configs.md"):
        text = page(where)
        assert [name for name in REGISTRY if f"`{name}`" not in text] == []
