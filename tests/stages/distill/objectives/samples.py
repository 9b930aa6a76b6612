"""A batch for every objective, and every objective for it."""

from dataclasses import replace

import torch

from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.stages.distill.objectives import REGISTRY, Facts, Pair, Sides, build_objective
from egapipe.stages.distill.objectives.shared.edges import edges_among

DIM = 16
FEATURES = 12
"""Of the teacher, before its head."""
CLASSES = 5
ROWS = 60
"""Of the data set."""

SHAPES = {
    "grid": ((3, 4, 6), (4, 2, 3)),
    "deep": ((5, 2, 3), (6, 4, 2)),
    "tokens": ((5, 3), (4, 6)),
    "pooled": ((7,), (9,)),
}
"""Of a row in each pair of features, student and teacher."""

ON_FEATURES = ("gram", "at", "iusp", "dreamteacher")
ON_VIEWS = [n for n, kind in REGISTRY.items() if kind.turned or kind.views_per_row > 1]
"""Those that compare several views of a row with each other."""
ON_EDGES = ("lsp", "embeddistill")
ON_VECTORS = [n for n in REGISTRY if n not in (*ON_FEATURES, *ON_VIEWS, *ON_EDGES)]
"""Those that compare embeddings and predictions by themselves."""

CONFIGS = {
    **{name: {name: {}} for name in REGISTRY},
    "crd": {"crd": {"negatives": 40, "dim": 8}},
    "rrd": {"rrd": {"count": 20}},
    "rrd of clusters": {"rrd": {"count": 20, "anchors": "kmeans"}},
    "ega direct": {"ega": {"form": "direct"}},
    "ega factored": {"ega": {"form": "factored"}},
    "sp direct": {"sp": {"form": "direct"}},
    "sp factored": {"sp": {"form": "factored"}},
    "sp grid": {"sp": {"features": "grid"}},
    "unic grid": {"unic": {"features": "grid"}},
    "fitnet grid": {"fitnet": {"features": "grid"}},
    **{
        f"{name} tokens": {name: {"features": "tokens"}}
        for name in ("gram", "unic", "fitnet", "at", "iusp")
    },
    "sp several": {"sp": {"features": ["grid", "tokens", "pooled"]}},
    "at several": {"at": {"features": ["grid", "deep"]}},
    "dreamteacher": {"dreamteacher": {"channels": 8}},
    "dreamteacher several": {
        "dreamteacher": {"features": ["grid", "deep"], "channels": 8, "attention": "batch"}
    },
    "fitnet several": {"fitnet": {"features": ["grid", "tokens", "pooled"]}},
    **{
        f"lsp {kernel}": {"lsp": {"kernel": kernel, "mean": "edges"}}
        for kernel in ("cosine", "poly", "l2", "rbf")
    },
    "lsp several": {"lsp": {"features": ["grid", "tokens", "pooled"]}},
    "embeddistill of teacher": {
        "embeddistill": {"documents": "teacher", "distance": "cosine", "temperature": 0.5}
    },
    "irg raw": {"irg": {"normalize": False}},
    "dogo of pairs": {"dogo": {"mean": "entries", "hidden": 24, "dim": 6, "peer_weight": 100.0}},
}
"""Every objective, and those of their options that compute in another way."""


NEIGHBOURS = torch.randint(-1, ROWS, (ROWS, 7), generator=torch.Generator().manual_seed(2))
"""Of each row; -1 = none."""


def labels_of(rows: int, seed: int = 0) -> torch.Tensor:
    """Labels of a data set of which some rows have none."""
    return torch.randint(-1, CLASSES, (rows,), generator=torch.Generator().manual_seed(seed))


def facts(labels: torch.Tensor | None = None, **changes) -> Facts:
    labels = labels_of(ROWS) if labels is None else labels
    known = Facts(
        DIM,
        DIM,
        labels,
        seed=7,
        shapes=SHAPES,
        teacher_features=FEATURES,
        turns=4,
        views_per_row=2,
        anchors=anchors,
    )
    return replace(known, **changes)


def anchors(kind: str, count: int) -> torch.Tensor:
    """Another set for each kind."""
    generator = torch.Generator().manual_seed(len(kind))
    return torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)


def build(name, dtype=torch.float64, labels=None):
    """A named configuration's objective, with the same parameters at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ObjectiveConfig.model_validate(CONFIGS[name])
        return build_objective(config, facts(labels)).to(dtype)


def pair(batch: int, dtype=torch.float64, seed=0, features=None, **changes) -> Pair:
    """Random rows whose floating tensors want gradients; `changes` replace fields, `features` some
    of the pairs."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    rows = torch.randperm(ROWS, generator=generator)[:batch]
    made = Pair(
        student=rand(batch, DIM),
        teacher=rand(batch, DIM),
        student_logits=rand(batch, CLASSES),
        teacher_logits=rand(batch, CLASSES),
        labels=labels_of(ROWS)[rows],
        rows=rows,
        features={n: Sides(*(rand(batch, *s) for s in shapes)) for n, shapes in SHAPES.items()},
        teacher_features=rand(batch, FEATURES),
        edges=edges_among(rows, NEIGHBOURS),
    )
    return replace(made, features={**made.features, **(features or {})}, **changes)


def tensors(found: Pair) -> dict[str, torch.Tensor]:
    """All of a pair's, those of its features by `NAME.student` and `NAME.teacher`."""
    own = {name: value for name, value in vars(found).items() if torch.is_tensor(value)}
    sides = {
        f"{n}.{side}": v for n, both in found.features.items() for side, v in both._asdict().items()
    }
    return own | sides


def seen_by(objective, made: Pair) -> Pair:
    """A pair as it is, or for an objective of several views with more entries behind each: other
    numbers, and of turned ones no label."""
    several = max(entries_per_row(one) for one in objective.objectives.values())
    if several == 1:
        return made
    factors = torch.tensor([1.0, 0.8, -0.5, 1.1][:several], dtype=torch.float64)

    def more(value: torch.Tensor) -> torch.Tensor:
        rows = value.detach().repeat_interleave(several, dim=0)
        if not value.is_floating_point():
            return rows
        by = factors.to(value.dtype).repeat(len(value)).view(-1, *[1] * (value.dim() - 1))
        return (rows * by).requires_grad_(value.requires_grad)

    entries = {name: more(v) for name, v in vars(made).items() if torch.is_tensor(v)}
    if several == 2:
        return replace(made, **entries)
    labels = entries["labels"].view(-1, 4)
    labels[:, 1:] = -1
    return replace(made, **entries, turns=4)


def entries_per_row(objective) -> int:
    return 4 if objective.turned else objective.views_per_row


def gradients(found: Pair) -> dict[str, torch.Tensor]:
    """Of the pair's tensors, those that received one."""
    return {name: t.grad for name, t in tensors(found).items() if t.grad is not None}
