"""The tutorial from its first block to its last, as one session of a shell."""

import re
from pathlib import Path

import pytest

from tests.markdown import SHIPPED, blocks, page, run_shell, write_photos

# In place of what takes hours or a download; each must occur.
SMALLER = {
    "facebook/dinov2-small": SHIPPED,
    "epochs: 60": "epochs: 2",
    "{name: resnet8x4}": "{name: resnet8}",
    "image_size: 64": "image_size: 32",
    "seeds: [0, 1, 2]": "seeds: [0, 1]",
    "samples: 8": "samples: 2",
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_block_of_the_tutorial_runs(tmp_path: Path) -> None:
    """Slow: nine trainings and a sweep on Ray."""
    write_photos(tmp_path / "photos")
    texts = blocks(page("docs/tutorial.md"))
    [config] = [text for language, text in texts if language == "yaml"]
    assert config.startswith("# mine.yaml\n")
    for large, small in SMALLER.items():
        assert large in config
        config = config.replace(large, small)
    (tmp_path / "mine.yaml").write_text(config, "utf-8")
    shell = [text for language, text in texts if language == "sh"]
    assert {language for language, _ in texts} == {"yaml", "sh"}
    commands = "".join(shell).replace("resnet8x4-ega", "resnet8-ega")
    run_shell(f"export OMP_NUM_THREADS=1\n{commands}", tmp_path, seconds=900)
    runs = tmp_path / "runs" / "mine"
    assert (tmp_path / "predictions.parquet").is_file()
    assert len(list(runs.glob("compare-*/report.html"))) == 1
    assert len(list(runs.glob("sweep-*/report.html"))) == 1
    assert len(list(runs.glob("resnet8-ega-seed0-*/export/README.md"))) == 1


def test_every_link_between_pages_leads_somewhere() -> None:
    root = Path(__file__).resolve().parents[1]
    pages = ["README.md", *(f"docs/{file.name}" for file in (root / "docs").glob("*.md"))]
    for name in pages:
        prose = re.sub(r"```.*?```|^    .*?$", "", page(name), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", prose):
            if target and "://" not in target:
                assert (root / name).parent.joinpath(target).exists(), f"{name}: {target}"
