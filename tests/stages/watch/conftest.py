"""The stores of the training's tests."""

from tests.stages.distill.conftest import digits_store, quick

__all__ = ["digits_store", "quick"]
