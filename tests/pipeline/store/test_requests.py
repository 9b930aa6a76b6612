"""What a command asks of an object store does not grow with the number of shards."""

import hashlib
import io
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets import open_split
from egapipe.pipeline.results.pairing import open_pair
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.store.commands.summary import summarize
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.manifest import Parent
from egapipe.pipeline.store.growth import next_state
from egapipe.stages.doctor.parts import Parts
from egapipe.stages.doctor.stores import check_reachable
from egapipe.stages.extract import prepare
from tests.pipeline.store.conftest import forget
from tests.pipeline.store.requests import Requests, counted, fill

# As many as docs/scale.md counts; the growth would be seen from 50 to 1,000.
SHARDS = [50, 1_000, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=SHARDS)
def config(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Config]:
    """Of a finished store with a shard an image."""
    folder, rows = tmp_path_factory.mktemp("images"), request.param
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    images = [{"bytes": image.getvalue(), "path": None}] * rows
    pq.write_table(pa.table({"image": images, "label": [0] * rows}), folder / "train.parquet")
    config = Config.model_validate(
        {
            "name": "requests",
            "dataset": {"train": {"kind": "parquet", "files": [str(folder / "train.parquet")]}},
            "teacher": {
                "backend": "python",
                "model": "egapipe.stages.bench.scale:teacher",
                "preprocessing": {"size": 8},
            },
            "views": {"count": 0},
            "store": {
                "url": f"memory://requests-{rows}",
                "shard_rows": 1,
                "cache_dir": str(folder / "cache"),
            },
        }
    )
    [extraction] = prepare(config, ["train"])
    fill(extraction.job.store, hashlib.sha256(image.getvalue()).digest())
    yield config
    forget(f"requests-{rows}")


def extract(config: Config) -> None:
    """`egapipe extract` of what is finished already."""
    [extraction] = prepare(config, ["train"])
    assert extraction.complete
    assert extraction.run(local=True).extracted == 0


def info(config: Config) -> None:
    assert summarize(config.store_url("train"))["complete"]


def doctor(config: Config) -> None:
    assert "is complete" in str(check_reachable(Parts(config)))


def read(config: Config) -> None:
    """The start of stage two, where the node-local copy is there."""
    store = FeatureStore.open(config.store_url("train"))
    Features.open(store, cache_dir=config.store.cache_dir)


def train(config: Config) -> None:
    """`read`, and its images compared, which are as they were when somebody last looked."""
    open_pair(config, open_split(config, "train"), "train")


# Lists; reads: created (twice, where it is asked first whether there is a store), manifest,
# whether rows were appended, finished and its two tables; the index where rows are compared.
COMMANDS: dict[Callable[[Config], None], tuple[int, int]] = {
    extract: (2, 8),
    info: (1, 6),
    doctor: (1, 7),
    read: (1, 6),
    train: (1, 7),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_command_on_a_finished_store(config: Config, command: Callable[[Config], None]) -> None:
    read(config)
    asked = requests(config, command)
    lists, reads = COMMANDS[command]
    assert asked.of("list") <= lists <= 2
    assert asked.of("read") <= reads
    assert asked.of("put") == asked.of("delete") == 0
    # Records come out of one object.
    names = [path.partition(".zarr/")[2] for path in asked.paths("read")]
    assert not any(name.startswith(layout.COMMITS + "/0") for name in names)
    assert asked["read", path_of(config, layout.COMMIT_TABLE)] == 1


def test_a_store_that_has_grown_takes_a_list_and_a_read_more(config: Config) -> None:
    """To see whether rows were appended once more."""
    store = FeatureStore.open(config.store_url("train"))
    stored, index = store.manifest, store.index()
    record = stored.dataset.model_copy(
        update={
            "rows": stored.rows + 1,
            "parent": Parent(rows=stored.rows, content=store.content_hash()),
        }
    )
    row = {"row": [stored.rows], "key": ["new"], "label": [0], "source": ["sample"]}
    rows = pa.concat_tables([index, pa.table(row, schema=index.schema)])
    state = next_state(store.objects, stored.rows)
    grown = FeatureStore.create(state, stored.model_copy(update={"dataset": record}), rows)
    try:
        shape = (1, 1, *stored.outputs["embedding"])
        images = {stored.rows: b"\1" * 32}
        grown.write_shard(stored.rows, {"embedding": np.zeros(shape, np.float32)}, images=images)
        grown.finish()
        asked = requests(config, info)
        assert asked.of("list") == 2
        assert asked.of("read") == 7
        assert summarize(config.store_url("train"))["rows"] == stored.rows + 1
    finally:
        for key in state.own.sizes():
            state.own.delete(key)


def test_an_older_finished_store_is_read_record_by_record(config: Config) -> None:
    """As before, and with the same content."""
    store = FeatureStore.open(config.store_url("train"))
    content, table = store.content_hash(), store.objects.get(layout.COMMIT_TABLE)
    assert table is not None
    store.objects.delete(layout.COMMIT_TABLE)
    try:
        with counted() as asked:
            found = store.finished()
            assert found.content_hash() == content
            assert dict(found.commits) == store.snapshot().commits
        assert asked["read", path_of(config, layout.commit_key(7))] == 2
    finally:
        store.objects.put(layout.COMMIT_TABLE, table)


def requests(config: Config, command: Callable[[Config], None]) -> Requests:
    with counted() as asked:
        command(config)
    return asked


def path_of(config: Config, key: str) -> str:
    return f"/{config.store_url('train').removeprefix('memory://')}/{key}"
