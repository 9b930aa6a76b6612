"""The paper's steps of the learning rate."""

import pytest

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.stages.distill.schedule import learning_rate


def test_the_papers_schedule_is_the_default() -> None:
    config = DistillConfig()
    rates = {epoch: learning_rate(config, epoch) for epoch in (0, 149, 150, 179, 180, 210, 239)}
    expected = {0: 0.05, 149: 0.05, 150: 5e-3, 179: 5e-3, 180: 5e-4, 210: 5e-5, 239: 5e-5}
    assert rates == pytest.approx(expected)


def test_milestones_below_one_are_shares_of_the_epochs() -> None:
    config = DistillConfig(epochs=40, lr=1.0, milestones=(0.5, 0.75))
    assert [learning_rate(config, e) for e in (19, 20, 29, 30)] == pytest.approx(
        [1, 0.1, 0.1, 0.01]
    )
