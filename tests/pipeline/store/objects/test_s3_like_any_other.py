"""What holds for a store on a disk holds in an object store: the same tests, on a real server."""

import pytest

from tests.objectstore import S3, s3, s3_server
from tests.pipeline.store.invariants.test_invariant_1_whole_shards import (
    test_a_committed_shard_is_never_written_again,
    test_only_whole_shards_are_written,
)
from tests.pipeline.store.invariants.test_invariant_2_records import (
    test_a_chunk_that_lost_its_record_can_be_written_again,
    test_a_chunk_without_record_does_not_count,
    test_a_shard_of_equal_numbers_is_stored_like_any_other,
    test_zarr_is_not_believed_when_its_metadata_are_damaged,
)
from tests.pipeline.store.invariants.test_invariant_5_resume import (
    test_finishing_twice_changes_nothing,
    test_only_leftovers_of_the_store_itself_are_removed,
    test_what_is_made_of_the_records_is_made_again,
)
from tests.pipeline.store.invariants.test_invariant_6_failures import (
    test_failed_rows_are_marked_counted_and_listed,
)
from tests.pipeline.store.objects.test_objects import (
    test_a_folder_that_holds_something_else_is_left_alone,
    test_a_store_without_its_first_record_is_not_created_over,
    test_a_zarr_group_of_somebody_else_is_left_alone,
    test_what_is_put_is_there,
)
from tests.pipeline.store.test_command import test_info_of_a_store
from tests.pipeline.store.test_create import test_what_was_asked_for_is_there

__all__ = [
    "s3",
    "s3_server",
    "test_a_chunk_that_lost_its_record_can_be_written_again",
    "test_a_chunk_without_record_does_not_count",
    "test_a_committed_shard_is_never_written_again",
    "test_a_folder_that_holds_something_else_is_left_alone",
    "test_a_shard_of_equal_numbers_is_stored_like_any_other",
    "test_a_store_without_its_first_record_is_not_created_over",
    "test_a_zarr_group_of_somebody_else_is_left_alone",
    "test_failed_rows_are_marked_counted_and_listed",
    "test_finishing_twice_changes_nothing",
    "test_info_of_a_store",
    "test_only_leftovers_of_the_store_itself_are_removed",
    "test_only_whole_shards_are_written",
    "test_what_is_made_of_the_records_is_made_again",
    "test_what_is_put_is_there",
    "test_what_was_asked_for_is_there",
    "test_zarr_is_not_believed_when_its_metadata_are_damaged",
]


@pytest.fixture
def url(s3: S3) -> str:
    """Instead of the places that these tests run at elsewhere."""
    return s3.url()
