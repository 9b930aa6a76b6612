"""`egapipe export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from egapipe.pipeline.terminal.options import Checkpoint, TrustRemoteCode, as_path, as_place
from egapipe.pipeline.terminal.text import columns, say

if TYPE_CHECKING:
    from egapipe.stages.export import ExportReport
    from egapipe.stages.export.measured import Accuracy


def register(app: typer.Typer) -> None:
    """Add `egapipe export`."""
    app.command()(export)


def export(
    run: Annotated[
        str,
        typer.Argument(parser=as_place, help="The run folder that `egapipe distill` printed."),
    ],
    checkpoint: Checkpoint = "last",
    to: Annotated[
        Path | None,
        typer.Option(parser=as_path, help="Folder to write; default: export in the run folder."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="safetensors, torch, onnx, native, onnx-fp16 or onnx-int8 (repeatable; default: "
            "all of full precision).",
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="Version of ONNX's operators; default: torch's own.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            parser=as_path, help="Folder of images to check on; default: the run's test images."
        ),
    ] = None,
    licence: Annotated[str, typer.Option("--license", help="For the model card.")] = "unknown",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a student as safetensors, a torch.export program and ONNX, with a model card.

    A student that is a network of transformers, timm or torchvision also becomes a checkpoint of
    theirs (native). Every file is compared with the student on real images, and timed.
    """
    from egapipe.pipeline.terminal.progress import open_progress
    from egapipe.stages.export import run as export_run

    report = export_run(
        run,
        checkpoint=checkpoint,
        to=to,
        formats=formats,
        opset=opset,
        images=images,
        licence=licence,
        trust_remote_code=trust_remote_code,
        progress=open_progress,
    )
    say(*table_lines(report))


def table_lines(report: "ExportReport") -> list[str]:
    """An export as lines of text."""
    rows = [
        ["file", "MB", "error", *(f"ms, batch {batch}" for batch in report.reference)],
        ["(the student)", "", "", *_times(report.reference)],
    ]
    rows += [
        [file.file, f"{file.bytes / 1e6:.2f}", f"{file.error:.1e}", *_times(file.milliseconds)]
        for file in report.files
    ]
    return [
        _accuracy(report.accuracy),
        f"checked on {report.images} real images, one CPU thread",
        "",
        *columns(rows, gap=3),
        "",
        *_agreements(report),
        *([f"native is left out: {report.left_out}"] if report.left_out else []),
        f"export: {report.folder}",
    ]


def _agreements(report: "ExportReport") -> list[str]:
    """What files of lower precision give on real images."""
    from egapipe.stages.export.agreement import in_words

    found = [f"{file.file}: {in_words(file.agreement)}" for file in report.files if file.agreement]
    return [*found, ""] if found else []


def _accuracy(found: "Accuracy | str") -> str:
    if isinstance(found, str):
        return f"accuracy unknown: {found}"
    many = "" if found.images is None else f" of {found.images:,}"
    note = f": {found.note}" if found.note else ""
    return f"top-1 {found.top1:.2f} %{many} {found.split} images, {found.which} checkpoint{note}"


def _times(milliseconds: dict[int, float]) -> list[str]:
    return [f"{value:.2f}" for value in milliseconds.values()]
