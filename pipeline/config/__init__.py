"""The configuration of an experiment: one tree, from YAML and `--set` overrides."""

from egapipe.pipeline.config.load import load_config, override, to_yaml
from egapipe.pipeline.config.tree import Config

__all__ = ["Config", "load_config", "override", "to_yaml"]
