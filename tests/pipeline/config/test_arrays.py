"""What of a configuration is for images, where its rows are arrays."""

from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.config.views import ViewsConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import run_folder
from tests.stages.words import of_words


def test_views_of_arrays_are_what_is_there(tmp_path: Path) -> None:
    config = of_words(tmp_path)
    assert config.views == ViewsConfig(count=2, crop="none", flip=0.0)
    assert config.distill.augment == ViewsConfig(count=0, crop="none", flip=0.0)
    file = tmp_path / "again.yaml"
    file.write_text(to_yaml(config))
    again = load_config(str(file), trust_remote_code=True)
    assert again == config
    assert run_folder(again).path == run_folder(config).path


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("views.flip=0.5", "views.flip is for images"),
        ("views.turns=4", "views.turns is for images"),
        ("distill.augment.crop=scale", "distill.augment.crop is for images"),
        ("distill.mix={}", "distill.mix is for images"),
        ("distill.jitter={}", "distill.jitter is for images"),
        ("distill.image_size=32", "distill.image_size is for images"),
        ("extract.canvas=64", "extract.canvas is for images"),
        ("teacher={backend: timm, model: some}", "teacher.backend timm sees images"),
        ("dataset.test={kind: digits}", "arrays and images do not go together"),
        ("dataset.unlabelled={kind: digits}", "arrays and images do not go together"),
    ],
)
def test_settings_of_images_are_refused(tmp_path: Path, setting: str, named: str) -> None:
    # Turned views come in fours.
    more = ["views.count=4"] if "turns" in setting else []
    with pytest.raises(UsageError, match=named):
        of_words(tmp_path, *more, setting)


def test_a_network_of_the_users_own_sees_one_of_both(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of preprocessing"):
        of_words(tmp_path, "teacher.array=null")
    with pytest.raises(UsageError, match="one of preprocessing"):
        of_words(tmp_path, "teacher.preprocessing={size: 32}")
