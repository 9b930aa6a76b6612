"""What starts a cluster is what its tools read: checked against their published schemas.

schemas.json.gz has the structure, without the texts, of KubeRay's custom resources (commit feeaf72)
and of the Compose specification (commit 170098b).
"""

import copy
import gzip
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from egapipe.pipeline.config import load_config

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SCHEMAS = json.loads(gzip.decompress(Path(__file__).with_name("schemas.json.gz").read_bytes()))
KUBERAY = ("raycluster.yaml", "rayjob.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / name).read_text("utf-8")))


def closed(schema: Any) -> Any:
    """A schema of Kubernetes that refuses unknown members, as its API server does."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    if made.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    return made


def mistakes(kind: str, tree: dict[str, Any]) -> list[str]:
    schema = copy.deepcopy(SCHEMAS[kind])
    if kind != "compose":
        # Of the metadata only the API server knows more.
        schema["properties"]["metadata"] = {"type": "object"}
        schema = closed(schema)
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(tree)]


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_reads_its_manifests(name: str) -> None:
    trees = [tree for tree in documents(f"kuberay/{name}") if tree["apiVersion"] == "ray.io/v1"]
    assert len(trees) == 1
    for tree in trees:
        assert mistakes(tree["kind"], tree) == []
        tree["spec"]["rayClustersSpec"] = {}
        assert mistakes(tree["kind"], tree) != []


def test_compose_reads_its_file() -> None:
    [tree] = documents("compose.yaml")
    assert mistakes("compose", tree) == []
    tree["services"]["head"]["healthchecks"] = {}
    assert mistakes("compose", tree) != []


def pods(tree: Any) -> Iterator[dict[str, Any]]:
    """The specs of pods in a manifest, wherever they are."""
    if isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for value in tree.values():
            yield from pods(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from pods(value)


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_are_nobody_special_and_find_what_they_mount(name: str) -> None:
    found = [pod for tree in documents(f"kuberay/{name}") for pod in pods(tree)]
    assert found
    user = re.search(r"^USER (\d+)$", (DOCKER / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert user is not None
    for pod in found:
        assert pod["securityContext"]["runAsUser"] == int(user.group(1))
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_ray_of_the_manifests_is_the_one_that_is_tested() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / ".ci/constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    for name in KUBERAY:
        text = (DOCKER / "kuberay" / name).read_text("utf-8")
        assert set(re.findall(r'rayVersion: "(\S+)"', text)) == {pinned.group(1)}


def test_the_jobs_experiment_is_a_configuration(tmp_path: Path) -> None:
    [tree] = [t for t in documents("kuberay/rayjob.yaml") if t["kind"] == "ConfigMap"]
    [(name, text)] = tree["data"].items()
    file = tmp_path / name
    file.write_text(text, "utf-8")
    config = load_config(str(file))
    assert config.distill.workers == 2
    assert config.store.url == "s3://bucket/stores/cifar100"


def test_the_image_has_what_clusters_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    extras = re.search(r"/src\[([\w,]+)\]", text)
    assert extras is not None
    wanted = set(extras.group(1).split(","))
    assert wanted <= set(project["optional-dependencies"])
    assert {"cluster", "s3", "gcs"} <= wanted
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    assert all((ROOT / source).exists() for sources in copied for source in sources)
    for program in ("build-essential", "wget"):
        assert program in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_slurm_script_says_how_it_is_used() -> None:
    done = subprocess.run(
        ["bash", str(DOCKER / "slurm.sh")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "usage" in done.stderr
