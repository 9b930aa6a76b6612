"""The distillation objectives and their options.

Weights: the paper's tables take 1 for every objective; the CRD benchmark, whose forms several of
these are, weighs them as each docstring says.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from egapipe.pipeline.config.base import (
    REFERENCE,
    AboveZero,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Section,
)
from egapipe.pipeline.config.features import FeatureNames

Teaching = Literal["store", "peers", "average"]
"""Stored features, students that learn in the same steps, or the student's moving average."""


def unsaid_ratio(weight: Any) -> float | str:
    """What `ratio` is beside a weight where it is not said. Beside a number it means nothing, and
    is what it was before there was another."""
    return "auto" if weight == "auto" else 1.0


class Objective(Section):
    """What every objective has."""

    weight: NonNegative | Literal["auto"] = 1.0
    """Factor of this objective in the loss (the paper's lambda_EGA or beta); `auto`: what keeps
    its gradient at the student's features at `ratio` times that of the cross-entropy."""
    teacher: Teaching | None = None
    """Whom the student is compared with; default: `distill.teacher`."""
    labelled: ClassVar[bool] = True
    """Whether it stands on labels beside a stored teacher, if only those of the teacher's head."""
    ratio: AboveZero | Literal["auto"] = 1.0
    """For `weight: auto`: norm of this objective's gradient over that of the cross-entropy's.
    `auto`, which it is where it is not said: 1, and less in a training of few steps."""

    @model_validator(mode="before")
    @classmethod
    def _ratio_of_an_automatic_weight(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {"ratio": unsaid_ratio(value.get("weight")), **value}


class GraphObjective(Objective):
    """An objective over the graph of a batch."""

    scope: Literal["global", "local"] = "global"
    """Graph over the batch of all workers, or one graph a worker."""


class EgaOptions(GraphObjective):
    """Embedding Graph Alignment, arXiv 2211.13264."""

    node_weight: NonNegative = 0.8
    """Weight of the node-matching term."""
    edge_weight: NonNegative = 0.24
    """Weight of the edge-matching term (lambda_edge)."""
    form: Literal["auto", "direct", "factored"] = "auto"
    """How it is computed; the value is the same."""


class KdOptions(Objective):
    """Softened predictions, arXiv 1503.02531 (CRD benchmark: 0.9, beside 0.1 cross-entropy)."""

    temperature: AboveZero = 4.0
    """Divides the logits."""


class FitnetOptions(Objective):
    """FitNets' hint, arXiv 1412.6550 (CRD benchmark: 100)."""

    features: FeatureNames = "nodes"
    """The embeddings (`nodes`), or pairs of `distill.features` by name, such as `grid`."""


class SpOptions(GraphObjective):
    """Similarity-Preserving, arXiv 1907.09682 (CRD benchmark: 3000)."""

    features: FeatureNames = "nodes"
    """The embeddings (`nodes`), or pairs of `distill.features` by name, such as `grid`."""
    form: Literal["auto", "direct", "factored"] = "auto"
    """How it is computed; the value is the same."""


class CcOptions(GraphObjective):
    """Correlation Congruence, arXiv 1904.01802 (CRD benchmark: 0.02)."""


class PktOptions(GraphObjective):
    """Probabilistic Knowledge Transfer, arXiv 1803.10837 (CRD benchmark: 30000)."""


class RkdOptions(GraphObjective):
    """Relational Knowledge Distillation, arXiv 1904.05068 (CRD benchmark: 1)."""

    distance_weight: NonNegative = 25.0
    """Weight of the distances."""
    angle_weight: NonNegative = 50.0
    """Weight of the angles."""


class NceOptions(GraphObjective):
    """Noise-Contrastive Estimation over classes, arXiv 2104.10955."""

    temperature: AboveZero = 0.1
    """Divides the cosines."""


class IrgOptions(GraphObjective):
    """Instance Relationship Graph, Liu et al., CVPR 2019."""

    vertex_weight: NonNegative = 0.1
    """Weight of the embeddings' distance."""
    edge_weight: NonNegative = 5.0
    """Weight of the graphs' distance."""
    normalize: bool = True
    """Divide each graph by its largest edge."""


class CrdOptions(Objective):
    """Contrastive Representation Distillation, arXiv 1910.10699 (its own benchmark: 0.8)."""

    dim: Positive = 128
    """Width of the contrast; the banks are two times images x dim numbers."""
    negatives: Positive = 16384
    """Images that each one is contrasted with."""
    other_classes: bool = True
    """Take them from other classes, where the label is known; otherwise from all other images."""
    temperature: AboveZero = 0.07
    """Divides the cosines."""
    momentum: Fraction = 0.5
    """Share of the old row in a bank's new one."""


class CclOptions(GraphObjective):
    """Compositional Contrastive Learning, arXiv 2104.10955."""

    temperature: AboveZero = 0.1
    """Divides the cosines."""


class LskdOptions(Objective):
    """Standardised predictions, arXiv 2403.01427 (its code: 9, beside 0.1 cross-entropy)."""

    temperature: AboveZero = 2.0
    """Divides the standardised logits."""


class DkdOptions(Objective):
    """Decoupled predictions, arXiv 2203.08679 (its code: 1)."""

    target_weight: NonNegative = 1.0
    """Weight of the target class against all others (alpha)."""
    other_weight: NonNegative = 8.0
    """Weight of the distribution among the others (beta)."""
    temperature: AboveZero = 4.0
    """Divides the logits."""


class DistOptions(GraphObjective):
    """Correlations of predictions, arXiv 2205.10536 (its code: 1)."""

    inter_weight: NonNegative = 1.0
    """Weight of the correlations over the classes, of each row (beta)."""
    intra_weight: NonNegative = 1.0
    """Weight of the correlations over the rows, of each class (gamma)."""
    temperature: AboveZero = 1.0
    """Divides the logits."""


class UnicOptions(Objective):
    """Standardised regression, arXiv 2408.05088; beside `standardize: zscore`."""

    features: FeatureNames = "embedding"
    """The teacher's embeddings, or pairs of `distill.features` by name, such as `grid`."""
    cosine_weight: NonNegative = 0.5
    """Weight of one minus the cosine."""
    smooth_weight: NonNegative = 0.5
    """Weight of the smooth L1 distance."""


class RrdOptions(Objective):
    """Similarity to anchors, arXiv 2407.12073 (its code: 1)."""

    anchors: Literal["queue", "kmeans"] = "queue"
    """The last rows that were met, or the centres of clusters of all rows."""
    count: Positive = 4096
    """Anchors; at most as many as there are rows."""
    student_temperature: AboveZero = 0.1
    """Divides the student's cosines."""
    teacher_temperature: AboveZero = 0.02
    """Divides the teacher's cosines."""


class CkaOptions(GraphObjective):
    """Centred kernel alignment, arXiv 2401.11824."""


class ItrdOptions(GraphObjective):
    """Information-theoretic distillation, arXiv 2112.00459 (its code: 1)."""

    correlation_weight: NonNegative = 2.0
    """Weight of the entries' correlations."""
    mutual_weight: NonNegative = 0.05
    """Weight of the rows' similarities."""
    alpha: AboveZero = 1.5
    """Order of Renyi's entropy in the first term."""


class SimkdOptions(Objective):
    """The teacher's classifier, reused, arXiv 2203.14001 (its code: 1, and no cross-entropy)."""


class GramOptions(Objective):
    """Similarities between an image's patches, arXiv 2508.10104 (its code: up to 2)."""

    features: FeatureNames = "grid"
    """Pairs of `distill.features` by name."""


class AtOptions(Objective):
    """Attention transfer, arXiv 1612.03928 (CRD benchmark: 1000)."""

    features: FeatureNames = "grid"
    """Pairs of `distill.features` by name; their losses are added up."""


class IuspOptions(Objective):
    """Similarities within an utterance, arXiv 2009.01759."""

    features: FeatureNames = "grid"
    """Pairs of `distill.features` by name, of frames [T, D] or maps."""


class DreamteacherOptions(Objective):
    """Levels of a generative network, arXiv 2307.07487."""

    features: FeatureNames = "grid"
    """Pairs of `distill.features` by name, of maps, from fine to coarse."""
    attention_weight: NonNegative = 10.0
    """Weight of the attention's distance beside the maps' own."""
    attention: Literal["image", "batch"] = "image"
    """Attention is scaled for each image, as in the paper, or over the batch."""
    channels: Annotated[Positive, Field(ge=2)] = 256
    """Width of the pyramid over the student's levels."""


class SskdOptions(GraphObjective):
    """How turned images are told apart, arXiv 2006.07114 (its code: 1, with the parts' weights as
    here, beside 0.1 cross-entropy and 0.9 `kd`)."""

    tf_weight: NonNegative = 2.7
    """Weight of the predictions on turned images."""
    tf_temperature: AboveZero = 4.0
    """Divides the logits."""
    tf_keep: Fraction = 1.0
    """Of the turned images that the teacher is wrong on, the share that counts, best first."""
    ss_weight: NonNegative = 10.0
    """Weight of the similarities of turned images with plain ones."""
    ss_temperature: AboveZero = 0.5
    """Divides the cosines."""
    ss_keep: Fraction = 0.75
    """Of the turned images whose own image is not the most similar to the teacher, the share that
    counts, best first."""
    dim: Positive | None = None
    """Width of the heads that the similarities are of; default: that of what they are on."""
    fit_epochs: Count = 60
    """Epochs of the teacher's such head, on stored features before the student starts."""
    fit_lr: AboveZero = 0.05
    """Its learning rate."""


class DogoOptions(GraphObjective):
    """Contrast of two views, and how peers see it, arXiv 2104.09866 (its code: 1, without
    cross-entropy)."""

    temperature: AboveZero = 0.5
    """Divides the cosines of the contrast."""
    peer_weight: NonNegative = 1.0
    """Weight of the peers' view of it; 0 leaves them out."""
    peer_temperature: AboveZero = 0.1
    """Divides the cosines that peers compare."""
    mean: Literal["rows", "entries"] = "rows"
    """The peers' part is averaged over the rows of a batch, or over their pairs, as in its code:
    there a weight is as much as one smaller by the number of rows is here."""
    hidden: Positive = 512
    """Width within the projection."""
    dim: Positive = 128
    """Width of what is contrasted."""


class IgsdOptions(Objective):
    """One view predicts what the teacher makes of the other, arXiv 2010.12609; with
    `teacher: average`."""

    hidden: Positive = 512
    """Width within the predictor."""


class LspOptions(Objective):
    """Local structure preservation, arXiv 2003.10477 (DistillGCN: 1)."""

    features: FeatureNames = "nodes"
    """The embeddings (`nodes`), or pairs of `distill.features` by name, added up."""
    kernel: Literal["l1", "cosine", "poly", "l2", "rbf"] = "l1"
    """How near two neighbours are: the paper's, as DistillGCN has it, or one of efficient-gnns'."""
    mean: Literal["nodes", "edges"] = "nodes"
    """Over the rows of a batch, or over their edges, as efficient-gnns does."""


class HashingOptions(Objective):
    """Similarity-preserving hashing of student and teacher, arXiv 1207.1522."""

    bits: Positive = 32
    """Of a code."""
    margin: NonNegative = 4.0
    """Distance beyond which rows of other classes push each other no more."""
    intra_weight: NonNegative = 1.0
    """Weight of the pairs within student and within teacher."""


class EmbeddistillOptions(Objective):
    """Queries and documents as a teacher embeds and scores them, arXiv 2301.12005 (all weights 1;
    5 for generated queries): rows that `edges: pairs` joins, first to second."""

    labelled: ClassVar[bool] = False
    query_weight: NonNegative = 1.0
    """Weight of the queries' distance from the teacher's."""
    document_weight: NonNegative = 1.0
    """Weight of the documents' own, where the student embeds them."""
    label_weight: NonNegative = 1.0
    """Weight of the cross-entropy of a query's documents among those of the batch."""
    score_weight: NonNegative = 1.0
    """Weight of the distance of the student's scores of all documents from the teacher's."""
    documents: Literal["student", "teacher"] = "student"
    """Who embeds the documents that the student's queries are compared with: itself, or the teacher
    (an asymmetric student)."""
    distance: Literal["l2", "cosine"] = "l2"
    """Of embeddings: the norm of their difference, or one minus their cosine."""
    temperature: AboveZero = 1.0
    """Divides the scores, which are plain products."""


class CustomOptions(Objective):
    """An objective of your own."""

    call: Annotated[str, Field(pattern=REFERENCE)]
    """`module:callable`, which is called with the `Facts` of the training and gives an
    `Objective` of `egapipe.stages.distill.objectives`."""
    args: dict[str, JsonValue] = Field(default={})
    """Keyword arguments of the callable."""
    features: FeatureNames | None = None
    """Pairs of `distill.features` that it compares, by name."""


class ObjectiveConfig(Section):
    """The weighted sum of distillation objectives; none at all is cross-entropy alone.

    `ega: 1.0` is short for `ega: {weight: 1.0}`, and so for each of them.
    """

    ega: EgaOptions | None = None
    """Embedding Graph Alignment."""
    kd: KdOptions | None = None
    """Softened predictions."""
    fitnet: FitnetOptions | None = None
    """Embeddings, or feature maps, themselves."""
    sp: SpOptions | None = None
    """Similarities between images."""
    cc: CcOptions | None = None
    """Products of neighbouring images' distances."""
    pkt: PktOptions | None = None
    """Probabilities of neighbours."""
    rkd: RkdOptions | None = None
    """Distances and angles between images."""
    nce: NceOptions | None = None
    """Contrast of classes within the batch."""
    irg: IrgOptions | None = None
    """Embeddings and distances between images."""
    crd: CrdOptions | None = None
    """Contrast of images with a memory bank."""
    ccl: CclOptions | None = None
    """Contrast of classes within the batch, and predictions."""
    lskd: LskdOptions | None = None
    """Softened predictions, standardised."""
    dkd: DkdOptions | None = None
    """Softened predictions, the target apart from the other classes."""
    dist: DistOptions | None = None
    """Correlations of predictions, by row and by class."""
    unic: UnicOptions | None = None
    """The teacher's features themselves, by direction and by value."""
    rrd: RrdOptions | None = None
    """Similarities to anchors among the cached rows."""
    cka: CkaOptions | None = None
    """Correlation of the graphs of all similarities."""
    itrd: ItrdOptions | None = None
    """Correlations of the embeddings' entries, and similarities between images."""
    simkd: SimkdOptions | None = None
    """Embeddings under the teacher's own classifier."""
    gram: GramOptions | None = None
    """Similarities between an image's patches."""
    sskd: SskdOptions | None = None
    """Turned images: predictions, and similarities with plain ones."""
    at: AtOptions | None = None
    """Where in an image the squares of features are."""
    iusp: IuspOptions | None = None
    """Similarities between the frames, or places, of a row."""
    dreamteacher: DreamteacherOptions | None = None
    """Levels of maps, through a pyramid of the student's."""
    dogo: DogoOptions | None = None
    """Contrast of two views of each row, and how peers see it."""
    igsd: IgsdOptions | None = None
    """Each view predicts the other one of a teacher."""
    lsp: LspOptions | None = None
    """How near the neighbours of each row are."""
    hashing: HashingOptions | None = None
    """Codes of bits, alike for rows of one class, for student and teacher."""
    embeddistill: EmbeddistillOptions | None = None
    """Queries and their documents, as the teacher embeds and scores them."""
    custom: CustomOptions | None = None
    """What a module of yours computes."""

    @model_validator(mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        number = (int, float, str)
        return {k: {"weight": v} if isinstance(v, number) else v for k, v in value.items()}
