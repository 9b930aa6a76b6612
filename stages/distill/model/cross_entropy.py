"""The cross-entropy of rows of which some have no label, and some two."""

from torch import Tensor
from torch.nn import functional as F

from egapipe.stages.distill.data.batch import Batch


def labels_counted(batch: Batch) -> Tensor:
    """How many labels the rows of a batch have, a scalar: of a mixture each one that is known by
    its share."""
    own = batch.labels >= 0
    if batch.share is None or batch.others is None:
        return own.sum()
    return (batch.share * own + (1 - batch.share) * (batch.others >= 0)).sum()


def batch_cross_entropy(logits: Tensor, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Sum of the cross-entropy over the labels of a batch, those of mixtures by their shares; as
    `masked_cross_entropy`."""
    if batch.share is None or batch.others is None:
        return masked_cross_entropy(logits, batch.labels, smoothing)
    own, other = (
        F.cross_entropy(
            logits.float(), labels, ignore_index=-1, reduction="none", label_smoothing=smoothing
        )
        for labels in (batch.labels, batch.others)
    )
    return (batch.share * own + (1 - batch.share) * other).sum()


def masked_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum of the cross-entropy over labelled rows; zero, and connected to the graph, without any.

    logits: [B, C]. labels: int64 [B], -1 = unlabelled. smoothing: share of the target that is
    spread evenly over all classes.
    """
    return F.cross_entropy(
        logits.float(), labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
