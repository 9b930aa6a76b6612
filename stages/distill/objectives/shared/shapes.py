"""Checks of what a loss is called with."""

from torch import Tensor


def check_rows(name: str, student: Tensor, teacher: Tensor, *, one_width: bool = True) -> None:
    """Raise ValueError unless both are [B, D], D >= 1, of as many rows and, if asked, columns."""
    matrices = student.dim() == teacher.dim() == 2 and min(student.shape[1], teacher.shape[1]) > 0
    if (
        not matrices
        or len(student) != len(teacher)
        or (one_width and student.shape != teacher.shape)
    ):
        wanted = "two [B, D] tensors of one shape" if one_width else "[B, D] and [B, D'] tensors"
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"{name} needs {wanted}, D >= 1: {shapes}")


def check_places(name: str, student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError unless both are maps [B, F, H, W] or tokens [B, P, F], of as many rows."""
    one_kind = student.dim() == teacher.dim() and student.dim() in (3, 4)
    if len(student) != len(teacher) or not one_kind:
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"{name} needs [B, F, H, W] or [B, P, F] of as many rows: {shapes}")


def check_labels(name: str, labels: Tensor, rows: Tensor) -> None:
    """Raise ValueError unless labels are integers [B] beside B rows."""
    if labels.shape != rows.shape[:1] or labels.is_floating_point():
        found = f"{labels.dtype} {list(labels.shape)} beside {len(rows)} rows"
        raise ValueError(f"{name} needs integer labels [B], -1 = unlabelled: {found}")


def check_logits(name: str, student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError unless both are [B, C], C >= 1, of one shape."""
    if student.shape != teacher.shape or student.dim() != 2 or student.shape[1] == 0:
        shapes = f"student {list(student.shape)}, teacher {list(teacher.shape)}"
        raise ValueError(f"{name} needs two [B, C] tensors of one shape: {shapes}")
