"""timm and torchvision: what is said without them, and what they give where they are installed."""

import sys
from importlib.util import find_spec

import pytest
import torch

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students import (
    build_student,
    feature_width,
    maps_and_features,
    tap_shapes,
)

needs_timm = pytest.mark.skipif(not find_spec("timm"), reason="timm is not installed")
needs_torchvision = pytest.mark.skipif(
    not find_spec("torchvision"), reason="torchvision is not installed"
)


def message_of(name, args=None):
    with pytest.raises(UsageError) as caught:
        build_student(name, args or {})
    message = str(caught.value)
    assert "\n" not in message
    assert f"student {name!r}" in message
    return message


@pytest.mark.parametrize(
    ("package", "module"), [("timm", "timm"), ("torchvision", "torchvision.models")]
)
def test_a_package_that_is_not_installed_names_its_extra(package, module, monkeypatch):
    for missing in (package, f"{package}.models"):
        monkeypatch.setitem(sys.modules, missing, None)
    message = message_of(f"{package}:resnet18")
    assert f"needs {module} (ModuleNotFoundError: " in message
    assert message.endswith(f"pip install 'egapipe[{package}]'")


def test_a_package_that_fails_to_import_says_why(tmp_path, monkeypatch):
    """As torchvision does that was built for another torch."""
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator\\n does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert "(RuntimeError: operator does not exist)" in message_of("timm:resnet18")


def test_modules_of_these_packages_are_no_networks():
    """`timm.models:resnet18` stays what any module:callable is."""
    with pytest.raises(UsageError, match=r"cannot import timm\.no_such from"):
        build_student("timm.no_such:resnet18", {})


@needs_timm
class TestTimm:
    def test_features_and_maps(self):
        student = build_student("timm:resnet18", {}).eval()
        images = torch.randn(2, 3, 64, 64)
        assert feature_width(student, 64) == student.num_features == 512
        assert tap_shapes(student, ["maps"], 64)["maps"] == (512, 2, 2)
        with torch.no_grad():
            assert torch.equal(maps_and_features(student, images)[1], student(images))

    def test_a_head_that_widens(self):
        student = build_student("timm:mobilenetv3_small_050", {})
        channels, _, _ = tap_shapes(student, ["maps"], 64)["maps"]
        assert feature_width(student, 64) == student.num_features == 1024
        assert channels == 288

    @pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
    def test_a_transformer_gives_features_and_no_maps(self, name):
        student = build_student(f"timm:{name}", {"img_size": 56})
        assert feature_width(student, 56) == student.num_features
        with pytest.raises(UsageError, match=r"not maps \[B, C, h, w\]"):
            tap_shapes(student, ["maps"], 56)["maps"]

    def test_a_wrong_name_gives_the_nearest(self):
        assert "timm has no 'resnet19', did you mean resnet1" in message_of("timm:resnet19")

    def test_the_classifier_stays_away(self):
        message = message_of("timm:resnet18", {"num_classes": 10})
        assert "multiple values for keyword argument 'num_classes'" in message


@needs_torchvision
class TestTorchvision:
    @pytest.mark.parametrize(
        ("name", "features"),
        [("resnet18", 512), ("mobilenet_v3_small", 1024), ("shufflenet_v2_x0_5", 1024)],
    )
    def test_features(self, name, features):
        student = build_student(f"torchvision:{name}", {})
        assert feature_width(student, 64) == student.num_features == features
        with pytest.raises(UsageError, match="gives no feature maps"):
            tap_shapes(student, ["maps"], 64)["maps"]

    def test_a_wrong_name_gives_the_nearest(self):
        message = message_of("torchvision:resnet19")
        assert "torchvision has no 'resnet19', did you mean resnet1" in message

    def test_a_network_that_gives_no_features_of_images(self):
        assert "no 'fcn_resnet50'" in message_of("torchvision:fcn_resnet50")
        assert "no linear classifier" in message_of("torchvision:squeezenet1_1")

    def test_auxiliary_outputs_are_refused(self):
        message = message_of("torchvision:googlenet", {"init_weights": False})
        assert message.endswith("give it aux_logits: false")
        args = {"init_weights": False, "aux_logits": False}
        assert feature_width(build_student("torchvision:googlenet", args), 64) == 1024
