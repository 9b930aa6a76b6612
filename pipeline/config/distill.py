"""Stage two: student, heads, objective, schedule."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from egapipe.pipeline.config.augment import JitterConfig, MixConfig
from egapipe.pipeline.config.base import (
    REFERENCE,
    AboveZero,
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Section,
    Seed,
    Text,
)
from egapipe.pipeline.config.data import Normalize, ViewsConfig
from egapipe.pipeline.config.features import (
    GRID,
    FeaturesConfig,
    check_pairs,
    pair_names,
)
from egapipe.pipeline.config.located import Path
from egapipe.pipeline.config.objectives import EgaOptions, ObjectiveConfig, Teaching

# What else there is beside peers.
_OTHERS = ("student", "teacher", "average")


class StudentConfig(Section):
    """The network to train."""

    name: Text = "resnet8x4"
    """A registered student, or `module:callable` giving an nn.Module of images -> features. Parts
    none of whose parameters asks for a gradient stay as they are built, in evaluation mode."""
    args: dict[str, JsonValue] = Field(default={})
    """Keyword arguments of the callable."""


class HeadConfig(Section):
    """The linear node-embedding layers and classifiers on top of student and teacher."""

    dim: Positive | None = 256
    """Width of both node layers. Without one (null) the features themselves are the nodes; student
    and teacher must then be equally wide."""
    mode: Literal["simultaneous", "sequential"] = "simultaneous"
    """The teacher's head learns beside the student, or first and is then frozen."""
    lr: NonNegative = 0.01
    """Learning rate of the teacher's head, never decayed."""
    epochs: Positive = 30
    """Epochs of the teacher's head in `sequential` mode; iterations of `lbfgs`."""
    solver: Literal["sgd", "lbfgs"] = "sgd"
    """How a head that is learned first is learned: by the student's optimiser at the rate `lr`, or
    by L-BFGS over all rows at once, which has no rate and takes seconds."""
    l2: NonNegative = 0.01
    """Half of it times the squares of the weights is added to the loss of `lbfgs`, which suits
    standardised features (distill.standardize)."""


class EdgesConfig(Section):
    """Which rows are joined by an edge. `pairs` in its place is short for `{of: pairs}`."""

    of: Literal["nearest", "pairs"] = "nearest"
    """`nearest`: each row and some that are near it; `pairs`: those of `dataset.pairs`, each an
    edge from its first row to its second."""
    nearest: Positive = 8
    """Each row and so many that are nearest to it in teacher space, by the cosine of the clean
    views' embeddings."""

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"of": value} if isinstance(value, str) else value


class DistillConfig(Section):
    """One student's training.

    By themselves the defaults are the paper's protocol on CIFAR-100. In a whole configuration
    `recipe` decides what is not said, see `egapipe.pipeline.config.recipes`.
    """

    recipe: Literal["default", "paper"] = "paper"
    """What the settings are that nobody sets: today's (`default`: the head first, standardised
    features, a cosine), or the paper's. What does not say it has the default."""
    student: StudentConfig = StudentConfig()
    """The network to train."""
    init: Path | None = None
    """Weights that the student's backbone starts from: a safetensors file, or a run folder, whose
    last checkpoint it is. Default: they are drawn by `seed`."""
    head: HeadConfig = HeadConfig()
    """Node layers and classifiers."""
    objective: ObjectiveConfig = ObjectiveConfig(ega=EgaOptions())
    """Weighted sum of objectives beside the cross-entropy."""
    teacher: Teaching = "store"
    """Whom objectives compare the student with, where they do not say it: the store's teacher;
    `peers`, the other students, by turns, and the student by them; or `average`, the moving average
    of the student's weights."""
    peers: dict[Name, StudentConfig] = Field(default={})
    """Name -> another student, which learns in the same steps and by the same objectives."""
    teacher_output: Text = "embedding"
    """Output of the store to learn from; one that is not a vector is flattened."""
    teacher_grid: Text = "grid"
    """Output [C, h, w] of the store that objectives with `features: grid` compare with."""
    features: dict[Name, FeaturesConfig] = Field(default={})
    """Name -> pair of features that objectives compare where they say `features: NAME`. `grid` is
    there by itself: what the student has before pooling, and the output `teacher_grid`."""
    standardize: Literal["none", "scale", "zscore", "phi-s"] = "none"
    """What the teacher's outputs become on their way into the training, from their mean and
    covariance over the rows to learn from: centred and divided by one number (`scale`), each entry
    by its own (`zscore`), or rotated so that all entries vary alike (`phi-s`, arXiv 2410.01680)."""
    label_smoothing: Fraction = 0.0
    """Share of the student's target that is spread evenly over all classes."""
    ce_weight: NonNegative = 1.0
    """Factor of the student's cross-entropy (gamma)."""
    seed: Seed = 0
    """Seed of weights, order, augmentation and the choice of labels."""
    epochs: Positive = 240
    """Passes over the training rows; with an `unlabelled_ratio`, over the labelled ones."""
    batch_size: Positive = 64
    """Rows of one step over all workers."""
    micro_batch_size: Positive | None = None
    """Most rows of one forward pass on one worker, each view of a row counting; default: all it has
    of a step. The gradient is that of the whole step, graphs and all, except that batch
    normalisation sees so many rows at once. Bounds memory for one more forward pass."""
    graph_batch: Positive | None = None
    """Rows of the objectives' graphs, at least `batch_size`, the default. Those beyond the step's
    own are nodes remembered from the steps before, without gradient."""
    lr: NonNegative = 0.05
    """Student's initial learning rate."""
    schedule: Literal["steps", "cosine"] = "steps"
    """`steps`: the rate is multiplied by `decay` at each of `milestones`; `cosine`: it falls to 0
    along half a cosine, step by step."""
    warmup_epochs: NonNegative = 0
    """Epochs over which the rate first rises from 0, step by step; part of `epochs`."""
    milestones: tuple[NonNegative, ...] = (0.625, 0.75, 0.875)
    """Where the student's rate is multiplied by `decay`. Below 1: a share of `epochs`; from 1 on:
    an epoch, which must be below `epochs`. The default is the paper's 150, 180, 210 of 240."""
    decay: NonNegative = 0.1
    """Factor at each milestone."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """`muon` for the matrices of the student's backbone, and AdamW for the rest of the student.
    A teacher's head that learns by descent has SGD."""
    momentum: Fraction = 0.9
    """Of SGD and Muon; AdamW's first beta."""
    nesterov: bool = False
    """Nesterov's form of the momentum, of SGD and Muon."""
    beta2: Fraction = 0.999
    """AdamW's second beta."""
    weight_decay: NonNegative = 5e-4
    """Added to the gradient by SGD; AdamW and Muon take `lr` times it off the weights themselves,
    so theirs is a hundred times as large."""
    decay_on: Literal["all", "weights"] = "all"
    """What the weight decay is on: all parameters, or those of two dimensions and more only, not
    biases nor the scales of normalisations."""
    no_decay: tuple[Text, ...] = ()
    """Parameters of the student's backbone that never decay, by name or pattern: `*pos_embed`."""
    ema_decay: Fraction | None = None
    """Decay a step of a moving average of the student's weights, evaluated and saved beside it;
    default: none is kept."""
    clip_grad_norm: AboveZero | None = None
    """Largest norm of the student's gradient, over all its parameters: a longer one is scaled down.
    The teacher's head is not clipped."""
    image_size: Positive | None = None
    """Side of the student's square input; default: the size of the images."""
    normalize: Normalize | None = None
    """Student's input normalisation; default: the teacher's."""
    augment: ViewsConfig = ViewsConfig()
    """The student's own augmentation (its `count` and `seed` are not used: every epoch is a view).
    """
    jitter: JitterConfig | None = None
    """Changes of the colours of the student's images; default: none."""
    mix: MixConfig | None = None
    """Mixtures of two images of a batch for the student; default: none."""
    student_view: Literal["independent", "paired", "clean"] = "independent"
    """`independent`: own augmentation beside a random teacher view; `paired`: the teacher's crop,
    flip, turn and mixture; `clean`: own augmentation beside the teacher's clean view."""
    views_per_row: Positive = 1
    """Views of a row in a batch, behind each other; `batch_size` counts rows. With `paired` they
    are the teacher's next ones: 4, where `views.turns` is 4, are a plain view and its turned
    copies. Labels, heads and objectives have plain views alone, but for those that compare turned
    ones."""
    labels_per_class: Positive | None = None
    """Keep so many labels a class, chosen by seed; the other rows become unlabelled."""
    label_fraction: Annotated[Fraction, Field(gt=0.0)] | None = None
    """Keep this share of the labels of each class, at least one, chosen by seed; a larger share
    keeps the labels of a smaller one too. Not beside `labels_per_class`."""
    unlabelled_ratio: NonNegative | None = None
    """Unlabelled rows a batch for each labelled one; 0 leaves them out. An epoch is then one pass
    over the labelled rows. Default: rows of both sorts come as they are drawn, and an epoch is one
    pass over all of them."""
    sampler: (
        Literal["random", "class-balanced", "neighbours", "pairs"]
        | Annotated[str, Field(pattern=REFERENCE)]
    ) = "random"
    """Which rows meet in a batch, by name or as `module:callable`. `class-balanced`: the counts of
    two classes differ by one at most; `neighbours`: rows come in groups, a row and those nearest to
    it in teacher space; `pairs`: in groups of rows that `dataset.pairs` joins."""
    sampler_group: Annotated[Positive, Field(ge=2, le=64)] = 8
    """For `neighbours` and `pairs`: rows of a group, at most."""
    edges: EdgesConfig = EdgesConfig()
    """Edges for objectives that compare neighbours (`lsp`) or pairs (`embeddistill`); none else
    looks for them."""
    data: Literal["auto", "resident", "stream"] = "auto"
    """Images on the device as uint8, or decoded as needed; `auto`: resident if they fit."""
    resident_bytes: Positive = 4 * 2**30
    """Most bytes of the images of one source that `auto` keeps on the device."""
    stream_threads: Positive | None = None
    """Threads that decode ahead when streaming; default: a worker's share of the machine's cores,
    two at least."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the student trains."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the forward pass (autocast below float32; float16 with a scaled loss)."""
    tf32: Literal["none", "convolutions", "all"] = "convolutions"
    """What a GPU computes in TF32 where the precision is float32: products of 11 bits,
    several times as fast. `all` takes in matrix products, those of the objectives' graphs too."""
    deterministic: bool = False
    """Use deterministic operations only on a GPU: two runs, and a continued one, give the same
    weights bit for bit there. On a CPU they do anyway."""
    cuda_graphs: bool = True
    """On one GPU, record a step once and replay it; not for a student whose forward pass looks at
    values on the device."""
    channels_last: bool = True
    """Keep images and convolutions channels last in memory."""
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    """Mode of torch.compile for a step's forward and backward pass; `reduce-overhead` lets the
    compiler record CUDA graphs in place of `cuda_graphs` and needs a GPU, `max-autotune` tries more
    kernels. Default: not compiled."""
    threads: Positive | None = None
    """CPU threads a worker; default: torch's own choice."""
    workers: Count = 0
    """Ray Train workers; 0 trains in this process, without Ray."""
    sync_batchnorm: bool = False
    """Let batch normalisation see the rows of all workers, as one worker would. Without it each
    normalises over its own, and the number of workers is part of what a run is."""
    max_failures: Count = 3
    """Times Ray Train replaces lost workers."""
    min_workers: Positive | None = None
    """Fewest Ray Train workers to go on with where lost ones find no other machine; all come back
    when there is room again. Batches are the same with any number. Default: wait for all."""
    eval_epochs: Positive = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_epochs: Positive = 1
    """Epochs between checkpoints."""
    checkpoint_steps: Positive | None = None
    """Steps between checkpoints within an epoch, for long ones."""

    @model_validator(mode="after")
    def _own_views_are_plain(self) -> Self:
        if self.augment.turns > 1:
            raise ValueError("the student's own views are not turned: leave out augment.turns")
        return self

    @model_validator(mode="after")
    def _batch_over_workers(self) -> Self:
        if self.workers > self.batch_size:
            raise ValueError(f"batch_size {self.batch_size} is below workers {self.workers}")
        return self

    @model_validator(mode="after")
    def _fewest_of_workers(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is above workers {self.workers}")
        return self

    @model_validator(mode="after")
    def _synchronised_rows_are_a_steps(self) -> Self:
        if self.sync_batchnorm and self.micro_batch_size is not None:
            raise ValueError(
                "sync_batchnorm normalises over all rows of a step, micro_batch_size over those of "
                "a part: set one of them"
            )
        return self

    @model_validator(mode="after")
    def _graph_holds_a_step(self) -> Self:
        if self.graph_batch is not None and self.graph_batch < self.batch_size:
            raise ValueError(
                f"graph_batch {self.graph_batch} is below batch_size {self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _one_choice_of_labels(self) -> Self:
        if self.labels_per_class is not None and self.label_fraction is not None:
            raise ValueError("labels_per_class and label_fraction are two choices: set one of them")
        return self

    @model_validator(mode="after")
    def _both_sorts_in_a_batch(self) -> Self:
        if self.unlabelled_ratio is None:
            return self
        if self.sampler in ("neighbours", "pairs"):
            raise ValueError(
                f"sampler {self.sampler} groups labelled and unlabelled rows alike: "
                "unlabelled_ratio must be null"
            )
        labelled = self.labelled_rows
        missing = "labelled" if labelled == 0 else "unlabelled"
        if labelled == 0 or (self.unlabelled_ratio > 0 and labelled == self.batch_size):
            raise ValueError(
                f"unlabelled_ratio {self.unlabelled_ratio:g} leaves no {missing} row in a batch of "
                f"{self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _pairs_that_there_are(self) -> Self:
        check_pairs(self._all_pairs, dict(self.objective))
        return self

    @model_validator(mode="after")
    def _teachers_that_there_are(self) -> Self:
        taken = [name for name in _OTHERS if name in self.peers]
        if taken:
            raise ValueError(f"peers.{taken[0]} is not called so: give it a name of its own")
        live = {name: side for name, side in self.sides.items() if side != "store"}
        for name, side in live.items():
            where = f"objective.{name} has {side} as its teacher"
            if side == "peers" and not self.peers:
                raise ValueError(f"{where}: name one in peers, such as peers.other.name resnet8")
            if side == "average" and self.ema_decay is None:
                raise ValueError(f"{where}: set ema_decay, such as 0.99")
            if side == "average" and self.peers:
                raise ValueError(f"{where}, and peers have none: leave one of both out")
        if self.graph_batch is not None and (live or self.peers):
            raise ValueError(
                "graph_batch remembers the student beside stored features: leave it out where "
                "peers learn, or its average teaches"
            )
        return self

    @property
    def sides(self) -> dict[str, Teaching]:
        """Objective -> whom it compares the student with."""
        chosen = {name: options for name, options in self.objective if options is not None}
        return {name: options.teacher or self.teacher for name, options in chosen.items()}

    @property
    def learns_labels(self) -> bool:
        """Whether it needs any: the student's, or those that the teacher's head stands on."""
        stored = [name for name, side in self.sides.items() if side == "store"]
        return self.ce_weight > 0 or any(self._stands_on_labels(name) for name in stored)

    def _stands_on_labels(self, name: str) -> bool:
        """Of an objective beside a stored teacher. No head is behind pairs of features; what one of
        the user's own makes of them nobody knows."""
        options = getattr(self.objective, name)
        return bool(options.labelled) and (name == "custom" or not pair_names(options))

    @property
    def _all_pairs(self) -> dict[str, FeaturesConfig]:
        return {GRID: FeaturesConfig(teacher=self.teacher_grid), **self.features}

    @property
    def pairs(self) -> dict[str, FeaturesConfig]:
        """Name -> pair of features, of those that objectives compare with the store's."""
        return {name: self._all_pairs[name] for name in self._compared(live=False)}

    @property
    def live_pairs(self) -> dict[str, tuple[str, str]]:
        """Name -> taps of the student and of a live teacher, of those that objectives compare with
        one: by itself the same of both."""
        pairs = {name: self._all_pairs[name] for name in self._compared(live=True)}
        own = self.features
        return {
            name: (pair.student, (pair.teacher if name in own else None) or pair.student)
            for name, pair in pairs.items()
        }

    def _compared(self, *, live: bool) -> list[str]:
        sides = self.sides
        chosen = [o for n, o in self.objective if n in sides and (sides[n] != "store") == live]
        return list(dict.fromkeys(name for options in chosen for name in pair_names(options)))

    @property
    def labelled_rows(self) -> int:
        """Labelled rows of a batch where `unlabelled_ratio` says how many; else all may be."""
        return round(self.batch_size / (1.0 + (self.unlabelled_ratio or 0.0)))

    @model_validator(mode="after")
    def _a_ratio_of_something(self) -> Self:
        terms = [name for name, options in self.objective if options and options.weight == "auto"]
        if terms and self.ce_weight == 0:
            raise ValueError(
                f"objective.{terms[0]}.weight auto is a ratio of the cross-entropy's gradient, and "
                "ce_weight is 0: give it a number"
            )
        return self

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @model_validator(mode="after")
    def _warmup_within_epochs(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} is not below epochs {self.epochs}"
            )
        return self
