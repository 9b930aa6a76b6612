"""Entries: which views of a row stand beside each other in a batch."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.views import CLEAN, Hashes, teacher_views

Ints = npt.NDArray[np.int64]

# Views of the student's own plan between those of a row that comes up again in an epoch: no
# training has so many epochs.
_APART = 2**32


class Entries(NamedTuple):
    """Views of rows, `distill.views_per_row` of one row behind each other.

    rows: int64 [B] of the data set. draws: int64 [B], how often the row came up in the epoch
    before. views: int64 [B], the teacher's. own: int64 [B], numbers that no two views of a row have
    in a training: what the student's own plan and the changes of its images are drawn by.
    """

    rows: Ints
    draws: Ints
    views: Ints
    own: Ints


def entries_of(
    config: DistillConfig, plan: ViewsConfig, hashes: Hashes, rows: Ints, draws: Ints, epoch: int
) -> Entries:
    """The entries of rows, int64 [N], in their order. plan: of the store. hashes: uint64 [N] of the
    rows' keys. draws: int64 [N]."""
    several = config.views_per_row
    place = np.tile(np.arange(several), len(rows))
    views = np.repeat(first_views(config, plan, hashes, epoch, draws), several)
    rows, draws = np.repeat(rows, several), np.repeat(draws, several)
    return Entries(
        rows,
        draws,
        np.where(views == CLEAN, CLEAN, views + place),
        student_views(epoch, draws * several + place),
    )


def first_views(
    config: DistillConfig, plan: ViewsConfig, hashes: Hashes, epoch: int, draws: int | Ints
) -> Ints:
    """The first of the teacher's views of each row in an epoch, int64 [N].

    Every row walks through its augmented views, `distill.views_per_row` at a time; each time that
    it comes up in an epoch it is a step further.
    """
    if config.student_view == "clean" or plan.count == 0:
        return np.full(len(hashes), CLEAN)
    several = config.views_per_row
    number = teacher_views(plan.count // several, config.seed, epoch + np.asarray(draws), hashes)
    return 1 + several * (number - 1)


def plain_views(config: DistillConfig, plan: ViewsConfig, hashes: Hashes, epoch: int) -> Ints:
    """A view of each row that is not turned, another one each epoch, int64 [N]: what is learned
    from labels alone, without a student, learns from these. Where views are mixed, the clean ones.
    """
    if config.student_view == "clean" or plan.count == 0 or plan.mix is not None:
        return np.full(len(hashes), CLEAN)
    number = teacher_views(plan.plain, config.seed, epoch, hashes)
    return 1 + plan.turns * (number - 1)


def student_views(epoch: int, draws: Ints) -> Ints:
    """The student's own augmentation of a row, as a view of its own plan, int64 [B].

    View `epoch + 1`, and another one each time that the row comes up again in the epoch.
    """
    return epoch + 1 + _APART * draws


def turns_together(config: DistillConfig, plan: ViewsConfig) -> int:
    """Entries from one plain view to the next where the views between them are its turned ones, all
    of them; 1 where a batch has them as they come, or none."""
    whole = config.views_per_row % plan.turns == 0
    return plan.turns if whole and config.student_view == "paired" else 1


def check_views(config: DistillConfig, plan: ViewsConfig) -> None:
    """Raise UsageError where a training cannot have the views of a store's plan as it asks for."""
    several = config.views_per_row
    if config.student_view == "clean":
        return
    if plan.count % several:
        raise UsageError(
            f"distill.views_per_row is {several}, and the store has {plan.count} augmented views a "
            "row: set one that divides them"
        )
    kind = "turned (views.turns)" if plan.turns > 1 else "mixed (views.mix)"
    if (plan.turns > 1 or plan.mix is not None) and config.student_view != "paired":
        raise UsageError(
            f"the teacher's views are {kind}, and the student would see others: set "
            "distill.student_view to paired, or to clean"
        )
    if plan.mix is not None and config.mix is not None:
        raise UsageError(
            "the teacher's views are mixed (views.mix), and the student sees them so: leave out "
            "distill.mix"
        )
