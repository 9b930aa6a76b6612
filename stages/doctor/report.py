"""What the checks found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from egapipe.pipeline.terminal.text import padded

Status = Literal["ok", "warn", "FAIL", "skip"]


class Result(NamedTuple):
    """Of one check. said: what was found and, unless it is ok, what to do; one line."""

    status: Status
    said: str


def ok(said: str) -> Result:
    """As it should be."""
    return Result("ok", said)


def warn(said: str) -> Result:
    """It will run, perhaps not as it is meant to."""
    return Result("warn", said)


def fail(said: str) -> Result:
    """It will not run, or its results will be wrong."""
    return Result("FAIL", said)


class Finding(NamedTuple):
    """The result of a check, and the check's name. `skip`: it could not be made, and why."""

    name: str
    status: Status
    said: str

    def line(self) -> str:
        """The finding in one line."""
        return f"{padded(self.status, 6)}{padded(self.name, 16)}{self.said}"


@dataclass(frozen=True)
class DoctorReport:
    """Every check's finding, in the order they were made."""

    findings: Sequence[Finding]

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(finding.status != "FAIL" for finding in self.findings)

    def lines(self) -> list[str]:
        """A line for each finding, and one for all."""
        return [*(finding.line() for finding in self.findings), self.summary()]

    def summary(self) -> str:
        """How many findings there are of each sort."""
        found = [finding.status for finding in self.findings]
        sorts: dict[Status, str] = {"FAIL": "failed", "warn": "warnings", "skip": "skipped"}
        counts = (f"{found.count(status)} {word}" for status, word in sorts.items())
        return f"{found.count('ok')} of {len(found)} checks are ok, {', '.join(counts)}"
