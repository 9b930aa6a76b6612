"""The trained student of the evaluation's tests."""

from tests.stages.evaluate.conftest import better_before, digits_store, finished

__all__ = ["better_before", "digits_store", "finished"]
