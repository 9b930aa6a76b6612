"""What yesterday's run folders say."""

import json
from pathlib import Path

from egapipe.pipeline.config import load_config
from egapipe.pipeline.results.runs import RunFolder


def test_a_limit_of_a_run_of_before_took_the_first_rows(tmp_path: Path) -> None:
    """A resolved configuration says how since there is a choice."""
    sets = ["dataset.train.limit=70", "dataset.unlabelled={kind: digits, limit: 9}"]
    config = load_config("quickstart", sets)
    folder = RunFolder(tmp_path)
    folder.begin(config, {})
    assert folder.config() == config
    before = config.model_dump(mode="json")
    before["dataset"]["train"]["limit"] = 70
    before["dataset"]["unlabelled"][0]["limit"] = 9
    (tmp_path / "config.yaml").write_text(json.dumps(before))
    dataset = folder.config().dataset
    for source, rows in ((dataset.train, 70), (dataset.unlabelled[0], 9)):
        assert source.limit is not None
        assert (source.limit.rows, source.limit.choose) == (rows, "first")
