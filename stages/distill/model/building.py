"""From a configuration and opened sources to everything that learns."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Features
from egapipe.stages.distill.data.features.anchors import anchors_of
from egapipe.stages.distill.data.features.statistics import statistics_of
from egapipe.stages.distill.data.rows.entries import turns_together
from egapipe.stages.distill.data.rows.samplers import ONCE
from egapipe.stages.distill.data.rows.samplers.nearest import nearest_of
from egapipe.stages.distill.data.sources import Sources
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.forward import OWN, Learning, Live
from egapipe.stages.distill.model.measured import Measured, build_peer, live_average, measured
from egapipe.stages.distill.model.memory import REMEMBERED, GraphMemory
from egapipe.stages.distill.model.precision import PRECISIONS
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.model.standardizer import Standardizer
from egapipe.stages.distill.model.student import TeacherHead
from egapipe.stages.distill.model.synchronised import synchronise
from egapipe.stages.distill.objectives import Facts, Objective, WeightedSum, build_objective
from egapipe.stages.distill.objectives.base import no_anchors
from egapipe.stages.distill.objectives.shared.edges import Joined
from egapipe.stages.distill.workers.world import World


def build_model(
    config: Config,
    spec: StudentSpec,
    backbone: nn.Module,
    sources: Sources,
    world: World,
    steps: int,
) -> Distillation:
    """Student, heads and objective, and its peers. steps: of the whole training. Raises UsageError
    where they do not fit the sources, or each other."""
    distill, features = config.distill, sources.features[0].dim
    if spec.dim is None and spec.features != features:
        raise UsageError(
            f"distill.head.dim is null, but the student has {spec.features} features and the "
            f"teacher {features}: set distill.head.dim, the width of both node layers"
        )
    # Student before teacher before what else there is: a seed gives the same student whatever
    # follows.
    students = {OWN: measured(distill, spec, backbone)}
    average = live_average(students[OWN].student) if "average" in distill.sides.values() else None
    standardizer = open_standardizer(distill, sources.features, sources, world)
    teacher_head = TeacherHead(features, spec.dim, spec.classes, standardizer)
    for name, peer in distill.peers.items():
        students[name] = build_peer(distill, spec, peer)
    turns = turns_together(distill, sources.stores[0].manifest.plan)
    known = Facts(
        student_dim=0,
        teacher_dim=spec.dim or features,
        labels=torch.from_numpy(sources.labels),
        seed=distill.seed,
        teacher_features=features,
        turns=turns,
        views_per_row=distill.views_per_row,
        steps=steps,
        anchors=partial(anchors_of, sources, teacher_head.standardized, distill.seed, world),
    )
    learning = {
        name: Learning(one.student, _objective_of(name, students, distill, known, sources))
        for name, one in students.items()
    }
    neighbours, joined = _edges(distill, learning, sources, world, turns)
    student, objective = learning.pop(OWN)
    model = Distillation(
        student,
        teacher_head,
        objective,
        ce_weight=distill.ce_weight,
        label_smoothing=distill.label_smoothing,
        precision=PRECISIONS[distill.precision],
        world=world,
        memory=build_memory(distill, objective, spec, len(sources.labels)),
        repeats=distill.sampler not in ONCE or distill.views_per_row > turns,
        pairs=distill.pairs,
        standardizers=open_standardizers(distill, sources, world),
        mixes_teacher=distill.mix is None or distill.mix.teacher == "mixed",
        turns=turns,
        neighbours=neighbours,
        joined=joined,
        live=Live(learning, average, distill.live_pairs),
    ).to(world.device)
    # Another machine's arithmetic may have found other axes, or other centres.
    buffers = dict(model.named_buffers())
    world.broadcast(buffers[name] for name in model.replicated)
    _settle(model, distill)
    return model


def _objective_of(
    name: str,
    students: Mapping[str, Measured],
    distill: DistillConfig,
    known: Facts,
    sources: Sources,
) -> WeightedSum:
    """The objectives of a student. known: what is known of the store, whoever learns."""
    own = students[name]
    outputs = {output: parts[0].shape for output, parts in sources.outputs.items()}
    stored = replace(
        known,
        student_dim=own.dim,
        shapes={
            n: (own.taps[pair.student], outputs[pair.teacher or n])
            for n, pair in distill.pairs.items()
        },
    )
    others = [one for other, one in students.items() if other != name] or [own]
    objective = build_objective(
        distill.objective,
        stored,
        sides=distill.sides,
        live=_live_facts(stored, own, others, distill),
    )
    widths = sorted({one.spec.features for one in others})
    if len(widths) > 1 and "teacher_features" in objective.live_needs:
        raise UsageError(
            f"distill.peers have {' and '.join(map(str, widths))} features, which an objective "
            "compares as they are: let them be alike, or take another objective"
        )
    return objective


def _live_facts(
    stored: Facts, own: Measured, others: Sequence[Measured], distill: DistillConfig
) -> Facts:
    """What is known of the teachers that learn beside a student. Raises UsageError where these
    differ in what is compared."""
    first = others[0]
    for other in others:
        if distill.head.dim is None and other.dim != own.dim:
            raise UsageError(
                f"distill.head.dim is null, but {own.spec.student.name} has {own.dim} features and "
                f"{other.spec.student.name} {other.dim}: set distill.head.dim"
            )
        for name, (_, theirs) in distill.live_pairs.items():
            if other.taps[theirs] != first.taps[theirs]:
                raise UsageError(
                    f"distill.features.{name}: {first.spec.student.name} has "
                    f"{list(first.taps[theirs])} and {other.spec.student.name} "
                    f"{list(other.taps[theirs])}, and both are teachers: name what is of one shape"
                )
    shapes = {
        name: (own.taps[tap], first.taps[theirs])
        for name, (tap, theirs) in distill.live_pairs.items()
    }
    return replace(
        stored,
        teacher_dim=first.dim,
        shapes=shapes,
        teacher_features=first.spec.features,
        anchors=no_anchors,
    )


def _edges(
    distill: DistillConfig,
    learning: Mapping[str, Learning],
    sources: Sources,
    world: World,
    turns: int,
) -> tuple[Tensor | None, Joined | None]:
    """What edges are made of, where an objective asks for them: int32 [N, k], the nearest rows, or
    the pairs of the data set. Raises UsageError where a batch has rows turned."""
    every = cast(Mapping[str, Objective], dict(learning[OWN].objective.objectives.items()))
    asking = [name for name, one in every.items() if "edges" in one.needs]
    if not asking:
        return None, None
    if turns > 1:
        raise UsageError(
            f"objective.{asking[0]} compares rows, and a batch has each of them turned "
            "(views.turns): leave one of both out"
        )
    joining = [name for name in asking if every[name].joins_pairs]
    if distill.edges.of == "nearest" and joining:
        raise UsageError(
            f"objective.{joining[0]} is of rows that a data set joins: set dataset.pairs, and "
            "distill.edges to pairs"
        )
    if distill.edges.of == "nearest":
        nearest = nearest_of(sources.features, distill.edges.nearest, world)
        return torch.from_numpy(nearest.copy()), None
    links = sources.links
    if links is None:
        raise UsageError("distill.edges are pairs: name the file of them in dataset.pairs")
    return None, Joined(*map(torch.from_numpy, (links.starts, links.targets, links.scores)))


def _settle(model: Distillation, distill: DistillConfig) -> None:
    """Memory format, batch normalisation over workers and compilation, of all students."""
    world = model.world
    students = model.students
    if model.average is not None:
        model.average.to(world.device)
        students.append(model.average)
    if not distill.channels_last:
        for student in students:
            student.set_memory_format(torch.contiguous_format)
    if distill.sync_batchnorm and world.group is not None:
        objectives = [one.objective for one in model.learning.values()]
        for part in (*students, *objectives):
            synchronise(part, world.group, compiled=distill.compile is not None)
    if distill.compile is not None:
        compile_step(model, distill)


def open_standardizers(
    distill: DistillConfig, sources: Sources, world: World
) -> dict[str, Standardizer]:
    """Those of the outputs that pairs of features are of, by name."""
    found = {
        name: open_standardizer(distill, parts, sources, world, channels=True)
        for name, parts in sources.outputs.items()
    }
    return {name: standardizer for name, standardizer in found.items() if standardizer is not None}


def open_standardizer(
    distill: DistillConfig,
    outputs: Sequence[Features],
    sources: Sources,
    world: World,
    *,
    channels: bool = False,
) -> Standardizer | None:
    """What `distill.standardize` makes of an output of all sources; None where it does nothing.
    channels: each place of maps or tokens alike. Raises as `statistics_of` does."""
    kind = distill.standardize
    if kind == "none":
        return None
    rotated = kind == "phi-s"
    learned = sources.learned
    found = statistics_of(outputs, learned, world, channels=channels, rotated=rotated)
    return Standardizer.of(found, kind)


def compile_step(model: Distillation, distill: DistillConfig) -> None:
    """Compile student, heads and losses as one, or the student alone where the rest talks to other
    workers, is computed on other rows than it, changes its shapes, or keeps gradients within."""
    alone = model.world.size == 1 and len(model.learning) == 1 and model.average is None
    together = alone and model.memory is None and model.objective.balance is None
    whole = together and distill.micro_batch_size is None
    mode = "max-autotune-no-cudagraphs" if distill.compile == "max-autotune" else distill.compile
    for part in [model] if whole else model.students:
        part.compile(mode=mode)


def build_memory(
    distill: DistillConfig, objective: WeightedSum, spec: StudentSpec, rows: int
) -> GraphMemory | None:
    """The memory of graphs that are larger than a step, where there are any. rows: to train on.

    Raises UsageError for graphs larger than the data set, or of what is not remembered.
    """
    wanted = distill.graph_batch or distill.batch_size
    if wanted == distill.batch_size or not objective.graphs:
        return None
    if wanted > rows:
        raise UsageError(
            f"distill.graph_batch is {wanted}, the training images are {rows}: lower it to that"
        )
    if objective.graph_features or not objective.graph_needs <= set(REMEMBERED):
        raise UsageError(
            f"distill.graph_batch is {wanted}, but pairs of features of earlier steps are not "
            "remembered: leave graph_batch out, or the objective on them"
        )
    return GraphMemory(wanted - distill.batch_size, spec.dim or spec.features, spec.classes)
