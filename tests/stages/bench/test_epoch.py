"""What an epoch costs beside its steps: that it is measured."""

from pathlib import Path

import pytest

from egapipe.stages.bench.epoch import costs


@pytest.mark.slow  # 56 steps of resnet8x4
def test_every_cost_is_measured(tmp_path: Path) -> None:
    found = costs(tmp_path, rows=512, tested=64)
    assert found.keys() == {"steps", "draw", "checkpoint", "written", "evaluation"}
    assert all(seconds > 0 for seconds in found.values())
    assert sorted((tmp_path / "run" / "checkpoints").glob("*/student.safetensors"))
