"""The store of the tests of stage two."""

from tests.stages.evaluate.conftest import digits_store, finished

__all__ = ["digits_store", "finished"]
