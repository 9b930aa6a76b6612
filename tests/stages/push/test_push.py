"""A student on the hub: where other libraries look for it, and nothing that is not its own."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import egapipe
from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.locations import hub as locations
from egapipe.stages import export, push
from egapipe.stages.export.card import loading
from egapipe.stages.export.native import write_native
from egapipe.stages.export.weights import write_safetensors
from egapipe.stages.push.pushing import on_hub, placed
from tests.hub_server import TOKEN, Hub, running, use
from tests.stages.export.alone import run_alone
from tests.stages.export.students import order_of

NAME = "ann/small-digits"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        use(found, monkeypatch)
        yield found


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("pushed") / "run"))
    export.run(run, formats=["safetensors", "torch"])
    return run


def test_a_run_is_sent_once_and_loads_from_there(
    server: Hub, exported: Path, tmp_path: Path
) -> None:
    (exported / "export" / "notes.txt").write_text("mine", "utf-8")
    done = push.run(exported, NAME, private=True)
    there = server.repositories[f"model/{NAME}"]
    # Nothing that is read through pickle, nothing of the user's.
    assert done.files == ["README.md", "config.json", "model.safetensors", "preprocessor.json"]
    assert there.keys() == {".gitattributes", *done.files}
    assert push.run(exported / "export", NAME).sent == 0
    student = egapipe.Student.from_pretrained(NAME, cache_dir=tmp_path / "cache")
    own = egapipe.Student.from_pretrained(exported / "export")
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    for one, other in zip(student(pixels), own(pixels), strict=True):
        assert torch.equal(one, other)
    front = yaml.safe_load(there["README.md"].decode().split("---\n")[1])
    assert front["library_name"] == "egapipe"
    result = front["model-index"][0]["results"][0]
    assert result["dataset"]["args"] == {"labelled_images": 360}
    assert TOKEN.encode() not in b"".join(there.values())


@pytest.mark.slow  # ten seconds of another library's start
def test_a_network_of_another_library_lies_at_the_top(tmp_path: Path) -> None:
    order = order_of("resnet18", {}, tmp_path)
    write_safetensors(order)
    write_native(order)
    (tmp_path / "model.onnx").write_bytes(b"x")
    (tmp_path / "model.pt2").write_bytes(b"x")
    places = placed(tmp_path, "transformers")
    assert places == {
        "config.json": "transformers/config.json",
        "model.safetensors": "transformers/model.safetensors",
        "preprocessor_config.json": "transformers/preprocessor_config.json",
        "egapipe/config.json": "config.json",
        "egapipe/model.safetensors": "model.safetensors",
        "model.onnx": "model.onnx",
    }
    top = tmp_path / "top"
    for path, own in places.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / own, top / path)
    # The top is transformers', and egapipe finds its own.
    assert egapipe.Student.from_pretrained(top).spec == order.spec
    shown = run_alone(
        "from transformers import AutoModelForImageClassification as M\n"
        "print(type(M.from_pretrained('top')).__name__)",
        tmp_path,
    )
    assert shown.split()[-1] == "ResNetForImageClassification"
    card = "\n".join(loading("transformers"))
    assert f'"{NAME}"' in on_hub(card, "transformers", NAME)


def test_an_interrupted_push_continues(
    server: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locations, "MOST_FILES", 1)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    server.commits_left = 2
    with pytest.raises(EgapipeError, match="to continue"):
        push.run(exported, NAME)
    server.commits_left = None
    # Of an earlier push with other formats; what the user put there stays.
    there = server.repositories[f"model/{NAME}"]
    there |= {"model.onnx": b"old", "egapipe/config.json": b"old", "photo.jpg": b"mine"}
    assert push.run(exported, NAME).sent == 2
    assert not {"model.onnx", "egapipe/config.json"} & there.keys()
    assert there["photo.jpg"] == b"mine"


def test_a_run_from_elsewhere_sends_no_file_of_this_machine(
    server: Hub, exported: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    secret = tmp_path / "id_rsa"
    secret.write_text("secret", "utf-8")
    weights = run / "export" / "model.safetensors"
    weights.unlink()
    weights.symlink_to(secret)
    with pytest.raises(UsageError, match="is a link"):
        push.run(run, NAME)
    shutil.copy(exported / "export" / "model.safetensors", tmp_path / "w")
    weights.unlink()
    (tmp_path / "w").rename(weights)
    card = run / "export" / "README.md"
    card.unlink()
    card.symlink_to(secret)
    with pytest.raises(UsageError, match=r"README\.md is a link"):
        push.run(run, NAME)
    (run / "export").rename(tmp_path / "elsewhere")
    (run / "export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="export is a link"):
        push.run(run, NAME)
    (run / "export").unlink()
    with pytest.raises(UsageError, match="run `egapipe export"):
        push.run(run, NAME)
    assert server.repositories == {}


def test_a_record_that_names_a_folder_of_its_own_is_refused(
    server: Hub, exported: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    record = run / "export" / "export.json"
    content = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps({**content, "native": "../.."}), "utf-8")
    with pytest.raises(UsageError, match="is damaged"):
        push.run(run, NAME)
