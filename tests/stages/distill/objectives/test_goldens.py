"""The objectives against the authors' public implementations (float64, on fixed inputs)."""

import numpy as np
import pytest
import torch

from egapipe.stages.distill import objectives
from egapipe.stages.distill.objectives import CrdState, correlation, crd_loss
from egapipe.stages.distill.objectives.hashing import pushed
from egapipe.stages.distill.objectives.shared.edges import Edges
from tests.stages.distill.objectives.goldens import FILES, cases, golden

COUNTS = {
    "alignahead": 4,
    "at": 4,
    "cc": 4,
    "ccl": 4,
    "cka": 3,
    "crd": 1,
    "dist": 3,
    "dkd": 3,
    "dogo": 9,
    "dreamteacher": 9,
    "ega": 24,
    "embeddistill": 18,
    "fitnet": 4,
    "hashing": 4,
    "igsd": 3,
    "itrd": 3,
    "iusp": 3,
    "kd": 6,
    "lskd": 3,
    "lsp": 2,
    "lspedge": 8,
    "nce": 4,
    "pcc": 6,
    "pkt": 4,
    "rkd": 4,
    "rrd": 3,
    "simkd": 3,
    "sp": 5,
    "sskd": 12,
    "stkd": 2,
    "unic": 3,
}
APART = (
    "pcc",
    "crd",
    "simkd",
    "sskd",
    "stkd",
    "dreamteacher",
    "dogo",
    "hashing",
    "lsp",
    "lspedge",
    "alignahead",
    "embeddistill",
)
"""Those with a test of their own."""
FORMS = {"ega": ["direct", "factored", "auto"], "sp": ["direct", "factored", "auto"]}


def of(name):
    return [case for case in cases() if case.startswith(f"{name}_")]


def losses():
    """Each case of a loss of embeddings and logits, in each form there is."""
    for name in COUNTS:
        for case in of(name) if name not in APART else ():
            for form in FORMS.get(name, [None]):
                title = case if form is None else f"{case}-{form}"
                yield pytest.param(name, case, form, id=title)


def inputs(arrays):
    """The in_* of a case by their names: numbers, and tensors that want a gradient if they can."""
    found = {}
    for name, array in arrays.items():
        if name.startswith("in_"):
            value = torch.from_numpy(array)
            wants = value.dim() > 0 and value.is_floating_point()
            found[name.removeprefix("in_")] = value.requires_grad_(wants) if wants else value
    return {name: value.item() if value.dim() == 0 else value for name, value in found.items()}


def assert_loss_and_gradients(loss, given, arrays):
    loss.backward()
    assert loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-9)
    for name, expected in arrays.items():
        if name.startswith("grad_"):
            actual = given[name.removeprefix("grad_")].grad.numpy()
            largest = abs(expected).max()
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-7 * largest)


@pytest.mark.parametrize(("name", "case", "form"), list(losses()))
def test_loss_and_gradients(name, case, form):
    arrays = golden(case)
    given = inputs(arrays)
    options = {} if form is None else {"form": form}
    loss = getattr(objectives, f"{name}_loss")(**given, **options)
    assert_loss_and_gradients(loss, given, arrays)


def test_crd_and_the_state_it_leaves():
    arrays = golden("crd_step1")
    given = inputs(arrays)
    names = [name for name in given if name.startswith("state_")]
    state = {name.removeprefix("state_"): given.pop(name).detach() for name in names}
    loss, after = crd_loss(**given, state=CrdState(**state))
    assert_loss_and_gradients(loss, given, arrays)
    for actual, expected in (
        (after.contrast_memory_v1, "out_memory_v1_after"),
        (after.contrast_memory_v2, "out_memory_v2_after"),
        (after.contrast_params, "out_params_after"),
    ):
        np.testing.assert_allclose(actual.numpy(), arrays[expected], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", of("dreamteacher"))
def test_dreamteacher_on_all_levels(case):
    arrays = golden(case)
    given = inputs(arrays)
    weight = given.get("at_weight", 0.0)
    levels = range(sum(name.startswith("student") for name in given))
    loss = objectives.dreamteacher_loss(
        [given[f"student_{level}"] for level in levels],
        [given[f"teacher_{level}"].detach() for level in levels],
        attention_weight=weight,
        attention="batch" if "unofficial" in case else "image",
    )
    assert_loss_and_gradients(loss, given, arrays)


@pytest.mark.parametrize("case", [*of("lsp"), *of("lspedge")])
def test_structures_of_neighbours(case):
    """DistillGCN's, whose teacher has a gradient, and the kernels of efficient-gnns."""
    arrays = {name: array for name, array in golden(case).items() if name != "grad_teacher"}
    given = inputs(arrays)
    form = {"kernel": case.split("_")[1], "mean": "edges"} if case.startswith("lspedge") else {}
    loss = objectives.lsp_loss(given["student"], given["teacher"], Edges(*given["edges"]), **form)
    assert_loss_and_gradients(loss, given, arrays)


@pytest.mark.parametrize("case", of("alignahead"))
def test_layers_of_peers(case):
    """Each layer of the student beside the one before it of a peer, the first beside the last; or
    beside the same one. Its code takes the mean over the peers."""
    arrays, given = golden(case), inputs(golden(case))
    layers = sum(name.startswith("student") for name in given)
    ahead = 1 if "ahead_ahead" in case else 0
    edges = Edges(*given["edges"])
    peers = [
        torch.stack(
            [
                objectives.lsp_loss(
                    given[f"student_{(layer + ahead) % layers}"],
                    given[f"peer{peer}_{layer}"],
                    edges,
                )
                for layer in range(layers)
            ]
        ).sum()
        for peer in (0, 1)
    ]
    assert_loss_and_gradients(torch.stack(peers).mean(), given, arrays)


@pytest.mark.parametrize("case", [case for case in of("hashing") if "pairs" in case])
def test_codes_of_all_pairs(case):
    arrays, given = golden(case), inputs(golden(case))
    options = {name: given[name] for name in ("margin", "intra_weight")}
    rows = (given["first"], given["second"], given["labels"])
    assert_loss_and_gradients(objectives.hashing_loss(*rows, **options), given, arrays)
    across = objectives.hashing_loss(*rows, margin=given["margin"], intra_weight=0)
    assert across.item() == pytest.approx(float(arrays["out_cross"]))


@pytest.mark.parametrize("case", [case for case in of("hashing") if "code" in case])
def test_codes_of_drawn_pairs(case):
    """The public code adds up distances of pairs that it draws: of the same parts."""
    arrays, given = golden(case), inputs(golden(case))
    sides = ("first", "second", "first_negative", "second_negative")
    first, second, negative, other = (given[name] for name in sides)
    apart = [(negative, other), (first, negative), (second, other)]
    away = sum(
        pushed(torch.linalg.vector_norm(x - y, dim=1), given["margin"]).sum() for x, y in apart
    )
    loss = (first - second).square().sum() + given["negative_weight"] * away
    assert_loss_and_gradients(loss, given, arrays)


TERMS = {
    "both": {"query_weight": 0.5, "document_weight": 0.5},
    "cosine": {"query_weight": 1, "distance": "cosine"},
    "l2": {"query_weight": 1},
    "onehot": {"label_weight": 1, "documents": "teacher"},
    "score_asymmetric": {"score_weight": 1, "documents": "teacher"},
    "score_symmetric": {"score_weight": 1},
}
"""Of `embeddistill`: what counts, where all else is 0."""


def queries_and_documents(given, *, all_documents):
    """Both sides' rows, queries first, and an edge from each query to its document. all_documents:
    those of no query are to be told from the first one's."""
    student, teacher = given["student"], given.get("teacher", given["student"].detach())
    of_teacher = given.get("teacher_document", given.get("document"))
    if of_teacher is None:
        of_teacher = torch.zeros_like(teacher)
    of_student = given.get("student_document", of_teacher.detach())
    queries = len(student)
    documents = torch.arange(len(of_teacher) if all_documents else queries)
    source = torch.where(documents < queries, documents, 0)
    edges = Edges(source, documents + queries, (documents < queries).double())
    return torch.cat([student, of_student]), torch.cat([teacher, of_teacher.detach()]), edges


@pytest.mark.parametrize("case", of("embeddistill"))
def test_queries_and_documents(case):
    """Each term by itself. Two matched sides are added up, where its mean is taken; that of scores
    has all documents, those of other queries and of none."""
    arrays, given = golden(case), inputs(golden(case))
    term = next(term for term in TERMS if case.startswith(f"embeddistill_{term}_"))
    student, teacher, edges = queries_and_documents(
        given, all_documents=term.startswith(("onehot", "score"))
    )
    none = dict.fromkeys(("query_weight", "document_weight", "label_weight", "score_weight"), 0)
    options = {**none, **TERMS[term], "temperature": given.get("temperature", 1.0)}
    loss = objectives.embeddistill_loss(student, teacher, edges, **options)
    assert_loss_and_gradients(loss, given, arrays)


@pytest.mark.parametrize("case", of("dogo"))
def test_both_students_of_dogo(case):
    """Its code takes the mean over all pairs of rows; over rows a weight is as much smaller."""
    arrays, given = golden(case), inputs(golden(case))
    own = [given[name] for name in ("student", "student_other")]
    peer = [given[name] for name in ("peer", "peer_other") if name in given]
    kind, temperature = case.split("_")[1], given["temperature"]
    if kind == "ntxent":
        loss = objectives.ntxent_loss(*own, temperature=temperature)
    elif kind == "kl":
        loss = objectives.dogo_loss(*own, *peer, temperature=temperature, mean="entries")
        rows = objectives.dogo_loss(*own, *peer, temperature=temperature)
        torch.testing.assert_close(rows, loss * len(own[0]))
    else:
        loss = sum(
            objectives.ntxent_loss(*one, temperature=temperature)
            + given["kl_weight"]
            * objectives.dogo_loss(
                *one, *other, temperature=given["kl_temperature"], mean="entries"
            )
            for one, other in ((own, peer), (peer, own))
        )
    assert_loss_and_gradients(loss, given, arrays)


@pytest.mark.parametrize("case", of("simkd"))
def test_simkd_is_a_distance_of_nodes_under_the_teachers_classifier(case):
    """Its loss is FitNet's; what the public code makes of the projected features are our logits."""
    arrays = golden(case)
    given = inputs(arrays)
    loss = objectives.fitnet_loss(given["student"], given["teacher"])
    logits = torch.nn.functional.linear(given["student"], given["weight"], given["bias"])
    np.testing.assert_allclose(logits.detach().numpy(), arrays["out_logits"], rtol=1e-12)
    assert_loss_and_gradients(loss, given, arrays)


SSKD = {"tf": objectives.sskd_tf_loss, "ss": objectives.sskd_ss_loss}


@pytest.mark.parametrize("case", [case for case in of("sskd") if case.split("_")[1] in SSKD])
def test_the_parts_of_sskd(case):
    arrays = golden(case)
    given = inputs(arrays)
    assert_loss_and_gradients(SSKD[case.split("_")[1]](**given), given, arrays)
    assert given.get("teacher", given.get("teacher_logits")).grad is None


@pytest.mark.parametrize("case", of("sskd_pretext"))
def test_the_pretext_of_sskd(case):
    arrays = golden(case)
    given = inputs(arrays)
    assert_loss_and_gradients(objectives.pretext_loss(**given), given, arrays)


@pytest.mark.parametrize("case", of("sskd_total"))
def test_the_sum_of_sskd(case):
    """Cross-entropy and KD are of the plain images alone."""
    arrays = golden(case)
    given = inputs(arrays)
    s, t, labels = given["student_logits"], given["teacher_logits"], given["labels"]
    found = {
        "ce": torch.nn.functional.cross_entropy(s[::4], labels),
        "kd": objectives.kd_loss(s[::4], t[::4].detach(), temperature=given["kd_temperature"]),
        "tf": objectives.sskd_tf_loss(
            s, t, labels, temperature=given["tf_temperature"], keep=given["tf_keep"]
        ),
        "ss": objectives.sskd_ss_loss(
            given["student"],
            given["teacher"],
            temperature=given["ss_temperature"],
            keep=given["ss_keep"],
        ),
    }
    for name, value in found.items():
        assert value.item() == pytest.approx(float(arrays[f"out_{name}"]), rel=1e-9)
    loss = sum(given[f"{name}_weight"] * value for name, value in found.items())
    assert_loss_and_gradients(loss, given, arrays)


def test_rkd_gives_the_teacher_no_gradient():
    """As its cases, which have none, say."""
    given = inputs(golden(of("rkd")[0]))
    objectives.rkd_loss(**given).backward()
    assert given["teacher"].grad is None


@pytest.mark.parametrize("case", of("pcc"))
def test_correlation_of_stacked_rows(case):
    arrays = golden(case)
    student, teacher = (torch.from_numpy(arrays[f"in_{name}"]) for name in ("student", "teacher"))
    matrix = correlation(student, teacher).numpy()
    np.testing.assert_allclose(matrix, arrays["out_correlation"], rtol=0, atol=1e-12)


def test_there_are_goldens():
    """All 168, in files that a plain clone has."""
    assert {name: len(of(name)) for name in COUNTS} == COUNTS
    assert sum(COUNTS.values()) == len(cases()) == 168
    assert sum(file.stat().st_size for file in FILES) < 5_600_000
