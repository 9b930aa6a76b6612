"""The configuration of an experiment: one tree, from YAML and `--set` overrides."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.pipeline.config.load import load_config, override, to_yaml
    from egapipe.pipeline.config.tree import Config

__all__ = ["Config", "load_config", "override", "to_yaml"]

__getattr__ = lazy(
    __name__, {"Config": "tree", "load_config": "load", "override": "load", "to_yaml": "load"}
)
