"""All checks, one after the other."""

from collections.abc import Callable

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import EgapipeError, one_line
from egapipe.stages.doctor import images, machine, stores, student, teacher
from egapipe.stages.doctor.parts import MissingError, Parts
from egapipe.stages.doctor.report import DoctorReport, Finding, Result

Check = Callable[[Parts], Result]

# A check comes after those that it would repeat: what several look at is examined by the first.
CHECKS: dict[str, Check] = {
    "software": machine.check_software,
    "device": machine.check_device,
    "extras": machine.check_extras,
    "faiss": machine.check_faiss,
    "shared memory": machine.check_shared_memory,
    "ray": machine.check_ray,
    "images": images.check_images,
    "labels": images.check_labels,
    "classes": images.check_classes,
    "store": stores.check_reachable,
    "teacher": teacher.check_teacher,
    "ega": teacher.check_ega,
    "manifest": stores.check_manifest,
    "normalisation": stores.check_preprocessing,
    "embeddings": stores.check_embeddings,
    "extraction": stores.check_extraction,
    "cache": machine.check_cache,
    "runs": machine.check_runs,
    "student": student.check_student,
    "student input": student.check_student_normalisation,
    "teacher/student": teacher.check_not_student,
}
"""Name -> check. A check raises EgapipeError where something is wrong, and MissingError where it
cannot be made."""


def run(config: Config, *, show: Callable[[Finding], None] = lambda finding: None) -> DoctorReport:
    """Examine this machine, and whether all that a configuration names fits together.

    show: told each finding as soon as it is made. Nothing is written but what any command keeps in
    this node's cache. No check raises: what is wrong is in its finding.
    """
    parts, findings = Parts(config), []
    for name, check in CHECKS.items():
        finding = Finding(name, *examine(check, parts))
        findings.append(finding)
        show(finding)
    return DoctorReport(findings)


def examine(check: Check, parts: Parts) -> Result:
    """The result of one check, its refusals included."""
    try:
        return check(parts)
    except MissingError as missing:
        return Result("skip", str(missing))
    except EgapipeError as error:
        return Result("FAIL", one_line(error))
    except Exception as error:  # networks and drivers of others raise anything
        return Result("FAIL", f"{type(error).__name__}: {one_line(error)}")
