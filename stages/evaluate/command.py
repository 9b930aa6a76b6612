"""`egapipe evaluate`."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from egapipe.pipeline.terminal.options import Checkpoint, TrustRemoteCode, as_place
from egapipe.pipeline.terminal.text import columns, say
from egapipe.stages.evaluate import PROBE_IMAGES

if TYPE_CHECKING:
    from egapipe.stages.evaluate import Evaluation


def register(app: typer.Typer) -> None:
    """Add `egapipe evaluate`."""
    app.command()(evaluate)


def evaluate(
    run: Annotated[
        str,
        typer.Argument(parser=as_place, help="The run folder that `egapipe distill` printed."),
    ],
    checkpoint: Checkpoint = "last",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the student embeds images.")
    ] = "auto",
    probe_images: Annotated[
        int,
        typer.Option(min=0, help="Most training images to probe with; 0 leaves the probes out."),
    ] = PROBE_IMAGES,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a student's accuracy, calibration, embeddings and cost, against its teacher's.

    Writes evaluation.json into the run folder, and adds it to summary.json. What has no data is
    left out, with the reason.
    """
    from egapipe.pipeline.terminal.progress import open_progress
    from egapipe.stages.evaluate import run as evaluate_run

    found = evaluate_run(
        run,
        checkpoint=checkpoint,
        device=device,
        probe_images=probe_images,
        progress=open_progress,
        trust_remote_code=trust_remote_code,
    )
    say(*([json.dumps(found.as_json())] if as_json else table_lines(found)))


def table_lines(found: "Evaluation") -> list[str]:
    """An evaluation as lines of text."""
    lines = [f"{found.which} checkpoint of {found.run}: {found.student}"]
    if found.predictions is not None:
        of = found.predictions
        lines += [
            "",
            f"top-1 {of.top1:.2f} %, top-5 {of.top5:.2f} % of {of.images} test images, "
            f"expected calibration error {of.calibration_error:.2f} %",
        ]
    if found.embeddings:
        lines += [
            "",
            f"by the example of {found.probe_images:,} labelled training images",
            *columns(
                [
                    ["embeddings", "width", "20-NN %", "linear %"],
                    *(
                        [_NAMES[name], str(of.width), f"{of.knn:.2f}", f"{of.linear:.2f}"]
                        for name, of in found.embeddings.items()
                    ),
                ],
                gap=4,
            ),
        ]
    if found.graphs:
        rows = [
            [_PAIRS[name], f"{of.edge_correlation:.3f}", f"{of.neighbour_recall:.3f}"]
            for name, of in found.graphs.items()
        ]
        lines += ["", *columns([["graph of test images", "edges r", "recall@10"], *rows], gap=4)]
    return [*lines, "", *_cost_lines(found), *_left_out_lines(found)]


_NAMES = {"nodes": "student nodes", "features": "student features", "teacher": "teacher"}
_PAIRS = {
    "nodes": "student nodes, teacher",
    "features": "student features, teacher",
    "node_layers": "student nodes, teacher nodes",
}


def _cost_lines(found: "Evaluation") -> list[str]:
    cost = found.cost
    times = ", ".join(f"batch of {of.batch} {of.milliseconds:.2f} ms" for of in cost.latency)
    return [
        f"{cost.parameters:,} parameters ({cost.backbone_parameters:,} without head), "
        f"{cost.macs:,} MACs an image",
        f"one CPU thread: {times}",
    ]


def _left_out_lines(found: "Evaluation") -> list[str]:
    reasons = [f"{part}: {reason}" for part, reason in found.left_out.items()]
    return ["", "left out", *reasons] if reasons else []
