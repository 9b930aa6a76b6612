"""The form in which a configuration is kept: in manifests, and in the names of run folders.

Those must mean the same in every later version, while the configuration grows. So what counts is
what format 1 knew: its members are always there, at whatever value. A member that was added since
is there only where it is not what its absence means. A new setting at its default therefore
changes no store, no hash and no folder's name.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

FORMAT_1: Mapping[str, str] = {
    "ArchiveSource": "folder kind limit name sha256 split url",
    "AshaScheduler": "grace_epochs kind reduction",
    "CcOptions": "scope weight",
    "CclOptions": "scope temperature weight",
    "Config": "cluster compare dataset distill extract name runs store sweep teacher views",
    "CrdOptions": "dim momentum negatives other_classes temperature weight",
    "DatasetConfig": "test train unlabelled",
    "DigitsSource": "kind limit split",
    "Dimension": "choice grid loguniform randint uniform when",
    "DistillConfig": (
        "augment batch_size ce_weight channels_last checkpoint_epochs checkpoint_steps "
        "clip_grad_norm compile data decay device ema_decay epochs graph_batch head image_size "
        "label_fraction label_smoothing labels_per_class lr max_failures micro_batch_size "
        "milestones momentum normalize objective precision resident_bytes sampler sampler_group "
        "schedule seed stream_threads student student_view teacher_grid teacher_output threads "
        "unlabelled_ratio warmup_epochs weight_decay workers"
    ),
    "EgaOptions": "edge_weight form node_weight scope weight",
    "EnsembleTeacher": "backend combine normalize teachers",
    "FifoScheduler": "kind",
    "FitnetOptions": "features weight",
    "FolderSource": "kind limit path",
    "HeadConfig": "dim epochs lr mode",
    "HubSource": (
        "class_names config image_column key_column kind label_column limit name revision split"
    ),
    "ImportedTeacher": "backend model normalize",
    "IrgOptions": "edge_weight normalize scope vertex_weight weight",
    "KdOptions": "temperature weight",
    "MedianScheduler": "grace_epochs kind min_trials",
    "MlflowTracking": "experiment kind uri",
    "NceOptions": "scope temperature weight",
    "Normalize": "mean std",
    "ObjectiveConfig": "cc ccl crd ega fitnet irg kd nce pkt rkd sp",
    "OnnxTeacher": "any_size backend grid logits model output pooling prefix_tokens preprocessing",
    "OpenClipTeacher": "backend model precision pretrained",
    "ParquetSource": "class_names files image_column key_column kind label_column limit split",
    "PbtScheduler": "interval_epochs kind quantile resample",
    "PktOptions": "scope weight",
    "PythonTeacher": (
        "args backend grid logits model output pooling precision prefix_tokens preprocessing"
    ),
    "RkdOptions": "angle_weight distance_weight scope weight",
    "RunTeacher": "backend checkpoint model output precision",
    "SeveralSource": "kind limit sources",
    "SpOptions": "features form scope weight",
    "StoreConfig": "cache_dir dtype shard_rows url",
    "StudentConfig": "args name",
    "SweepConfig": (
        "cpus_per_trial gpus_per_trial max_concurrent max_failures metric mode samples "
        "scheduler search search_seed space track"
    ),
    "TimmTeacher": "backend model precision",
    "Transform": "mean resample resize size std",
    "TransformersTeacher": "backend grid logits model pooling precision revision",
    "ViewsConfig": "count crop flip padding ratio scale seed",
    "WandbTracking": "kind mode project",
    "WebDatasetSource": "class_names files image kind label_field limit tar_in_key",
}
"""Section -> its members in format 1. Never edited: what is new goes into LATER."""

LATER: Mapping[str, Mapping[str, Any]] = {
    "Config": {"track": None},
    "DatasetConfig": {"pairs": None, "validation": None},
    "HeadConfig": {"l2": 0.01, "solver": "sgd"},
    "HubSource": {"outside": False},
    "ParquetSource": {"outside": False},
    "PythonTeacher": {"array": None},
    "NetworkTeacher": {"outputs": {}},
    "Objective": {"ratio": 1.0, "teacher": None},
    "RunTeacher": {"trust_remote_code": False},
    "ObjectiveConfig": dict.fromkeys(
        (
            *("at", "cka", "custom", "dist", "dkd", "dogo", "dreamteacher", "embeddistill"),
            *("gram", "hashing", "igsd", "itrd", "iusp", "lsp", "lskd", "rrd", "simkd", "sskd"),
            "unic",
        )
    ),
    "SweepConfig": {"seeds": None, "warm_start": None},
    "ViewsConfig": {"aspect": None, "mix": None, "turns": 1},
    "ViewMix": {"alpha": 1.0, "among": None, "probability": 1.0},
    "EdgesConfig": {"nearest": 8, "of": "nearest"},
    "DistillConfig": {
        "beta2": 0.999,
        "cuda_graphs": True,
        "decay_on": "all",
        "deterministic": False,
        "edges": {},
        "eval_epochs": 1,
        "features": {},
        "init": None,
        "jitter": None,
        "min_workers": None,
        "mix": None,
        "nesterov": False,
        "no_decay": [],
        "optimizer": "sgd",
        "peers": {},
        "recipe": "paper",
        "standardize": "none",
        "sync_batchnorm": False,
        "teacher": "store",
        "tf32": "convolutions",
        "views_per_row": 1,
    },
}
"""Section -> member added since format 1 -> the value that its absence means, for ever: what
egapipe did before there was such a setting. A default may be changed, this value may not. A section
that others are made from (`Source`) stands for all of them."""


def durable(section: BaseModel) -> dict[str, Any]:
    """A section of the configuration as plain JSON values, without what is new and not used."""
    tree = {}
    kind = type(section)
    members = known(kind)
    for name, field in kind.model_fields.items():
        value = _plain(getattr(section, name))
        if name in members or value != _plain(absent(kind, name, field)):
            tree[name] = value
    return tree


def known(kind: type[BaseModel]) -> frozenset[str]:
    """The members that a section had in format 1; none where it is new."""
    return frozenset(FORMAT_1.get(_section(kind), "").split())


def absent(kind: type[BaseModel], name: str, field: FieldInfo) -> Any:
    """What it means that a member added since format 1 is not there."""
    meant = later(kind)
    if name in meant:
        return meant[name]
    return field.get_default(call_default_factory=True, validated_data={})


def later(kind: type[BaseModel]) -> dict[str, Any]:
    """Members that a section, or what it is made from, got since format 1 -> what absence means."""
    return {
        name: value
        for base in reversed(kind.__mro__)
        for name, value in LATER.get(base.__name__, {}).items()
    }


def _section(kind: type[BaseModel]) -> str:
    """The name under which a section, or one made from it, is known."""
    return next(
        (base.__name__ for base in kind.__mro__ if base.__name__ in FORMAT_1), kind.__name__
    )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return durable(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
