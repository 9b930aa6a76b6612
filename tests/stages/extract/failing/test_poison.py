"""Images that do harm cost their own row, and the command says which."""

from dataclasses import replace

import pytest

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.errors import MachineError
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.stages import extract
from egapipe.stages.extract.report import ExtractReport
from tests.stages.extract.conftest import MakeConfig
from tests.stages.extract.decoding.harm import Harm
from tests.stages.extract.failing.poison import Poison

FAILURES = "extract.max_failures=5"


def run(config: Config, harm: Harm, *, local: bool) -> ExtractReport:
    [extraction] = extract.prepare(config, ["train"])
    source = config.dataset.train
    assert isinstance(source, DigitsSource)
    job = replace(extraction.job, dataset=Poison(source, harm))
    return replace(extraction, job=job).run(local=local)


def failures(url: str) -> dict[int, str]:
    return {failure.row: failure.reason for failure in FeatureStore.open(url).failures()}


@pytest.mark.slow
def test_an_image_that_hangs_is_a_failure_of_its_row_in_one_process(quick: MakeConfig) -> None:
    config = quick(FAILURES, "extract.row_timeout=2.0", "extract.decode_threads=1")
    report = run(config, {21: "hang"}, local=True)
    assert failures(report.url) == {21: "decoding it takes more than 2 s"}
    assert check_store(report.url).ok


def test_with_processes_an_image_that_ends_its_process_is_a_failure(quick: MakeConfig) -> None:
    config = quick(FAILURES, "extract.decode=processes", "extract.decode_threads=1")
    report = run(config, {21: "exit", 69: "kill"}, local=True)
    assert failures(report.url) == {
        21: "decoding it ends the process (exit code 9)",
        69: "decoding it ends the process (SIGSEGV)",
    }
    assert check_store(report.url).ok


@pytest.mark.slow  # five workers one after the other, each of which imports torch
@pytest.mark.usefixtures("ray_cluster")
def test_images_that_end_or_hang_their_worker_are_failures_on_ray(quick: MakeConfig) -> None:
    config = quick(FAILURES, "extract.row_timeout=3.0", "extract.max_workers=1")
    report = run(config, {21: "exit", 50: "hang", 69: "kill"}, local=False)
    assert failures(report.url) == {
        21: "decoding it ends the process (exit code 9)",
        50: "decoding it takes more than 3 s",
        69: "decoding it ends the process (SIGSEGV)",
    }
    assert check_store(report.url).ok


@pytest.mark.slow  # two workers, each of which imports torch
@pytest.mark.usefixtures("ray_cluster")
def test_a_bug_ends_the_run_and_trouble_that_stays_names_its_row(quick: MakeConfig) -> None:
    config = quick("extract.max_restarts=1")
    with pytest.raises(ZeroDivisionError, match=r"(?s)harm\.py.*a bug of the data set"):
        run(config, {21: "bug"}, local=False)
    with pytest.raises(MachineError, match=r"^shard \d failed 2 times: .* the server hung up") as e:
        run(config, {21: "network"}, local=False)
    assert "\n" not in str(e.value)
