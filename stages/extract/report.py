"""What an extraction did, and what held it up."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Commit, Failure
from egapipe.stages.extract.advice import advise

# Decoding runs ahead in threads of its own, and a shard is stored beside the next one: what they
# cost the run is the wait for images, and for the shard before to be stored.
_PHASES = {"decode": "wait", "infer": "infer", "write": "hold"}
_QUOTED = 3


@dataclass(frozen=True)
class ExtractReport:
    """One finished store."""

    split: str
    url: str
    rows: int
    views: int
    """Views a row, the clean one included."""
    failures: int
    """Rows without an embedding."""
    extracted: int
    """Rows of this run; the others were there before."""
    seconds: float
    """Wall-clock seconds of this run, start-up of Ray and its workers included."""
    shares: dict[str, float]
    """Share of the workers' time: `decode` (the wait for images), `infer`, `write` (the wait for
    the storage). Empty if nothing was extracted."""
    working: float = 0.0
    """Seconds that all workers together spent in these phases."""

    @property
    def rows_per_second(self) -> float:
        """Rows of this run over its seconds."""
        return self.extracted / self.seconds if self.seconds else 0.0

    @property
    def advice(self) -> str:
        """What held the run up, and what would make it faster; empty for a short run."""
        return advise(self.shares, working=self.working, seconds=self.seconds)

    def line(self) -> str:
        """The report in one line."""
        what = f"{self.split}: {self.rows:,} rows x {self.views} views in {self.url}"
        failed = f", {self.failures:,} failed" if self.failures else ""
        if not self.extracted:
            return f"{what}{failed}: complete already"
        rate = f"{self.seconds:.1f} s, {self.rows_per_second:,.0f} rows/s"
        shares = ", ".join(f"{phase} {share:.0%}" for phase, share in self.shares.items())
        return "; ".join(filter(None, [f"{what}{failed}, {rate}", shares, shares and self.advice]))


@dataclass
class Tally:
    """Running totals of a run."""

    rows: int
    """Rows of the data set."""
    done: int = 0
    extracted: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def resume(self, done: int, failures: Iterable[Failure]) -> None:
        """Count rows of earlier runs."""
        self.done += done
        self.failures += failures

    def add(self, commit: Commit) -> None:
        """Count a shard of this run."""
        self.resume(commit.stop - commit.start, commit.failures)
        self.extracted += commit.stop - commit.start
        for phase, seconds in commit.seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    @property
    def working(self) -> float:
        """Wall-clock seconds of all workers together."""
        return sum(self.seconds.get(recorded, 0.0) for recorded in _PHASES.values())

    def shares(self) -> dict[str, float]:
        """Share of the workers' wall-clock time by phase."""
        total = self.working
        recorded = {phase: self.seconds.get(name, 0.0) for phase, name in _PHASES.items()}
        return {phase: seconds / total for phase, seconds in recorded.items()} if total else {}

    def check_failures(self, allowed: float) -> None:
        """Raise StoreError, with the first reasons, if more rows failed than allowed.

        allowed: a count if it is an integer, else a share of the rows.
        """
        limit = allowed if isinstance(allowed, int) else allowed * self.rows
        if len(self.failures) <= limit:
            return
        reasons = "; ".join(f"{f.key}: {f.reason}" for f in sorted(self.failures)[:_QUOTED])
        more = "; ..." if len(self.failures) > _QUOTED else ""
        raise StoreError(
            f"{len(self.failures):,} of {self.rows:,} rows failed, extract.max_failures allows "
            f"{allowed}: {reasons}{more}: repair or remove the images, or allow more; where "
            "outputs are not finite, set teacher.precision or store.dtype to float32"
        )
