"""The trained student of the evaluation's tests."""

from tests.stages.evaluate.conftest import digits_store, finished

__all__ = ["digits_store", "finished"]
