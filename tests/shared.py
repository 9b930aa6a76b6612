"""Where the data beside the project lies, and marks that skip where it does not."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CIFAR100 = SHARED / "cifar100"

needs_cifar100 = pytest.mark.skipif(
    not CIFAR100.is_dir(), reason="CIFAR-100 (shared/data/cifar100) is not beside the project"
)
