"""`egapipe doctor` as a whole: one line a check, and what is not there yet is no illness."""

import re
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.disk.caches import DIGESTS, owner
from egapipe.pipeline.errors import StoreError
from egapipe.stages import doctor
from egapipe.stages.doctor.examination import CHECKS, examine
from egapipe.stages.doctor.parts import MissingError, Part
from egapipe.stages.doctor.report import Finding, Result
from tests.command import egapipe
from tests.stages.doctor.conftest import MakeParts
from tests.stages.extract.conftest import as_options

STATUSES = {"ok", "warn", "FAIL", "skip"}


@pytest.mark.usefixtures("ray_cluster")
def test_what_was_extracted_is_healthy(extracted: list[str]) -> None:
    shown: list[Finding] = []
    report = doctor.run(load_config("quickstart", extracted), show=shown.append)
    assert report.healthy, report.lines()
    assert report.findings == shown
    found = {finding.name: finding.status for finding in report.findings}
    assert list(found) == list(CHECKS)
    # The rest depends on this machine.
    assert {name for name, status in found.items() if status != "ok"} <= {"shared memory"}
    *lines, summary = report.lines()
    assert all(re.match(r"(ok  |warn|FAIL|skip)  \S", line) for line in lines)
    assert not any("\n" in line for line in lines)
    assert summary.endswith("0 failed, 0 warnings, 0 skipped") or found["shared memory"] != "ok"


def test_a_store_that_is_not_there_yet_is_skipped(fresh: MakeParts) -> None:
    parts = fresh()
    for name in ("manifest", "normalisation", "embeddings"):
        status, said = examine(CHECKS[name], parts)
        assert status == "skip"
        assert "run `egapipe extract`" in said
    assert examine(CHECKS["store"], parts).status == "ok"
    assert examine(CHECKS["extraction"], parts).status == "ok"


def test_the_command_ends_in_1_if_a_check_fails(extracted: list[str]) -> None:
    # Nothing listens there, so no Ray is started either.
    run = egapipe("doctor", *as_options([*extracted, "cluster.address=127.0.0.1:9"]))
    assert run.returncode == 1, run.stderr
    *lines, summary = run.stdout.splitlines()
    found = {line[6:22].strip(): (line[:6].strip(), line[22:]) for line in lines}
    assert list(found) == list(CHECKS)
    assert {status for status, _ in found.values()} <= STATUSES
    assert {name for name, (status, _) in found.items() if status == "FAIL"} == {"ray"}
    assert found["ray"][1].startswith("no Ray cluster answers at 127.0.0.1:9")
    assert found["shared memory"] == ("skip", "no Ray is started here, cluster.address is set")
    assert "1 failed, 0 warnings, 1 skipped" in summary
    assert run.stderr == ""


def test_only_the_first_check_hears_why_a_part_cannot_be_made() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        raise StoreError("damaged")

    part = Part("the store", make)
    with pytest.raises(StoreError, match="damaged"):
        part.get()
    for _ in range(2):
        with pytest.raises(MissingError, match="needs the store, see above"):
            part.get()
    assert made == [1]
    counted = Part("numbers", lambda: made.append(2) or len(made))
    assert (counted.get(), counted.get(), made) == (2, 2, [1, 2])


def test_a_teacher_that_cannot_be_loaded_fails_one_check(fresh: MakeParts) -> None:
    parts = fresh("teacher.model=./none")
    names = ("teacher", "ega", "extraction", "student", "student input", "teacher/student")
    results = {name: examine(CHECKS[name], parts) for name in names}
    assert results["teacher"] == Result(
        "FAIL", "teacher ./none: no such folder; teacher.model is a folder or a hub name"
    )
    assert {
        results[n].status for n in ("ega", "extraction", "student input", "teacher/student")
    } == {"skip"}
    # Its own weights are finite whatever the teacher's are.
    assert results["student"].status == "ok"


def test_embeddings_that_were_imported_have_no_teacher_to_check(fresh: MakeParts) -> None:
    parts = fresh("teacher={backend: imported, model: m}")
    for name in ("teacher", "ega", "embeddings", "extraction", "teacher/student"):
        assert examine(CHECKS[name], parts).status == "skip", name
    assert examine(CHECKS["student input"], parts).status == "ok"


def test_what_is_written_to_see_whether_it_can_be_is_removed(
    fresh: MakeParts, tmp_path: Path
) -> None:
    parts = fresh()
    for name in ("store", "extraction", "cache", "runs"):
        assert examine(CHECKS[name], parts).status == "ok"
    # What was computed on the way is remembered.
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}
    kept = [path.relative_to(tmp_path / "cache") for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.parts[0] == DIGESTS.folder and owner(path) is not None for path in kept)
