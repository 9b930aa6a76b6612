"""Who decodes, by the cores of a worker."""

import pytest

from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.stages.extract.decoding.decoders import Decoders, decoders_for


def chosen(cores: int, *, own_process: bool = True, **settings: object) -> Decoders:
    asked = ExtractConfig.model_validate(settings)
    return decoders_for(asked, cores, own_process=own_process)


@pytest.mark.parametrize(
    ("cores", "own_process", "expected"),
    [
        (1, True, ("threads", 2)),
        (2, True, ("threads", 2)),
        (8, True, ("threads", 8)),
        (9, True, ("processes", 9)),
        (64, True, ("processes", 64)),
        (64, False, ("threads", 8)),
    ],
)
def test_as_many_as_there_are_cores(
    cores: int, own_process: bool, expected: tuple[str, int]
) -> None:
    assert chosen(cores, own_process=own_process) == expected


def test_what_is_asked_for_stays() -> None:
    assert chosen(64, decode_threads=3) == ("threads", 3)
    assert chosen(2, decode_threads=12) == ("processes", 12)
    assert chosen(2, decode_threads=12, own_process=False) == ("threads", 12)
    assert chosen(4, decode="processes") == ("processes", 4)
    assert chosen(64, decode="threads") == ("threads", 8)
    assert chosen(64, decode="threads", decode_threads=32) == ("threads", 32)


def test_an_isolated_shard_starts_few_processes() -> None:
    assert chosen(64).isolated == ("processes", 4)
    assert chosen(1).isolated == ("processes", 2)
