"""Which phase holds an extraction up, and what would make it faster."""

from collections.abc import Mapping

_NOTABLE = 0.15
# Of a shorter run the shares are chance, and there is nothing to gain.
_LEAST_SECONDS = 5.0


def advise(shares: Mapping[str, float], *, working: float, seconds: float) -> str:
    """One line on the bottleneck; empty for a run that was too short to say.

    shares: of the workers' time, `decode` (the wait for images), `infer` and `write` (the wait for
    the storage). working: seconds of all workers together. seconds: of the run, start-up included.
    """
    decode, infer, write = (shares.get(phase, 0.0) for phase in ("decode", "infer", "write"))
    if seconds < _LEAST_SECONDS:
        return ""
    if working < seconds / 2:
        return "most of it went into the start of Ray and its workers"
    if decode > max(_NOTABLE, write):
        return (
            f"the images are the bottleneck, the teacher waited {decode:.0%} of the time: raise "
            "extract.decode_threads, or cpus_per_worker where no core is idle"
        )
    if write > _NOTABLE:
        return (
            f"the storage is the bottleneck, the teacher waited {write:.0%} of the time for it: "
            "choose a nearer or faster store.url, or a smaller store.dtype"
        )
    return (
        f"the teacher is the bottleneck, busy {infer:.0%} of the time: more devices "
        "(extract.max_workers), a lower teacher.precision or extract.batch_size=auto are faster"
    )
