"""What tests of several stages share."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from egapipe.pipeline.config.extract import ClusterConfig
from egapipe.pipeline.disk import remembered
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.machine.cluster import quiet_environment, ray_session

# Actors of these modules are imported by Ray's workers, which do not look where they run.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# Ray reads its environment when it is imported, which a test module may do while it is collected.
quiet_environment(local=True)

# How long an example takes is a matter of the machine.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# Files of many seconds, and of few tests each.
LONGEST = (
    *("test_readme.py", "test_ray.py", "test_pool.py", "test_resume.py", "test_sweep.py"),
    *("test_browser.py", "test_workers.py", "test_report.py", "test_export.py", "test_training.py"),
    *("test_evaluate.py", "test_together.py", "test_elsewhere.py", "test_cli.py", "test_live.py"),
    *("test_kills.py", "test_packaging.py", "test_parts.py", "test_surroundings.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: at the end one of several processes would be alone with one."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def cache_of_no_other_test() -> Iterator[None]:
    """A configuration's `store.cache_dir` counts until another one is opened in the process."""
    yield
    use_cache(None)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of just now are remembered: when their inodes changed cannot be set, as their date."""
    monkeypatch.setattr(remembered, "SETTLED_SECONDS", -1.0)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One real Ray of 8 logical CPUs for the whole session; the code under test joins it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session(ClusterConfig(cpus=8)):
            yield
