"""Checkpoints: safetensors weights and a JSON position, whole or absent.

A checkpoint is a folder with student.safetensors (the backbone), heads.safetensors (node layers,
classifiers, what the objectives learn and remember), optimizer.safetensors, state.json and, where
one is kept, ema.safetensors (the moving average of the student). `last.json` and `best.json` point
at the folders that count; the pointer moves after the folder is complete.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.errors import StoreError, TrainingError, UsageError, one_line
from egapipe.pipeline.results.checkpoints import NAME, named, pointed
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.student import Student
from egapipe.stages.distill.training.learner import Learner

AVERAGE = "ema"
STUDENT = "student."
_ATTEMPTS = 5
BACKBONE = STUDENT + "backbone."


@dataclass
class Position:
    """Where training stands: `step` of `epoch` is the next to run.

    sums: this epoch's running metrics, over all workers. best_top1: of the epochs so far, % (-1
    before the first). seconds: spent so far. scaler: state of the loss's scale, empty without one.
    """

    epoch: int = 0
    step: int = 0
    best_top1: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, run: RunFolder | None = None) -> None:
        """run: whose they are, where that lies elsewhere than `folder`: there it counts."""
        self._folder, self._run = folder, run or RunFolder(folder.parent)
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """Those of a run."""
        return cls(run.checkpoints, run)

    def fetch(self, which: str) -> None:
        """Bring the `last` or `best` checkpoint of a run elsewhere to this node.

        Raises UsageError if the pointer is damaged, StoreError.
        """
        pointer = f"checkpoints/{which}.json"
        for _ in range(_ATTEMPTS if self._run.url else 0):
            self._run.fetch(pointer)
            name = named(self._folder, which)
            if name is None:
                return
            # A training there may go on, and remove it as soon as the next one counts.
            with suppress(StoreError):
                self._run.fetch(f"checkpoints/{name}/")
            self._run.fetch(pointer)
            if named(self._folder, which) == name:
                return

    def save(self, learner: Learner, at: Position, *, best: bool) -> None:
        """Copy what a checkpoint is made of, and begin to write it beside the training.

        Once written, (`best` and) `last` point at it, and those nothing points at are removed.
        Raises TrainingError where the one before could not be written.
        """
        self.wait()
        student, heads = split_weights(learner.model)
        tensors = {
            "student": student,
            "heads": heads,
            "optimizer": _optimizer_tensors(learner.optimizers),
        }
        if learner.average is not None:
            tensors[AVERAGE] = _copied(learner.average.state_dict())
        state = json.dumps({**asdict(at), "scaler": learner.scaler.state_dict()})
        name = f"epoch{at.epoch:05d}-step{at.step:07d}"
        self._writing = self._writer.submit(self._write, name, tensors, state, best)

    def wait(self) -> None:
        """Wait for what is being written. Raises TrainingError where it cannot be written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except OSError as error:
            raise TrainingError(
                f"cannot write a checkpoint to {self._folder}: {one_line(error)}: make room, or "
                "what is in the way writable, then run the same command again"
            ) from None

    def close(self) -> None:
        """Wait for what is being written, whether it can be or not."""
        self._settle()
        self._writer.shutdown()

    def _settle(self) -> None:
        if self._writing is not None:
            wait([self._writing])

    def _write(
        self, name: str, tensors: Mapping[str, dict[str, Tensor]], state: str, best: bool
    ) -> None:
        name = self._free(name)
        partial = self._folder / f".{name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file, content in tensors.items():
            replace_file(partial / f"{file}.safetensors", save(content))
        replace_file(partial / "state.json", state.encode())
        shutil.rmtree(self._folder / name, ignore_errors=True)
        os.replace(partial, self._folder / name)
        self._run.put(f"checkpoints/{name}/")
        self._run.require_held()
        # `best` first: it is found again by whoever goes on from the older `last`.
        for pointer in ("best", "last") if best else ("last",):
            replace_file(self._folder / f"{pointer}.json", json.dumps({"folder": name}).encode())
            self._run.put(f"checkpoints/{pointer}.json")
        self._prune()

    def find(self, which: str) -> Path | None:
        """The folder that `last` or `best` points at, if there is one."""
        self._settle()
        return pointed(self._folder, which)

    def resume(self, learner: Learner) -> Position:
        """Load the last checkpoint into the learner; a fresh Position without one.

        Raises TrainingError if it is damaged.
        """
        folder = self.find("last")
        if folder is None:
            return Position()
        at = self.position()
        with _explained(folder):
            load_weights(learner.model, folder)
            _load_optimizers(learner.optimizers, load_file(folder / "optimizer.safetensors"))
            if learner.average is not None:
                learner.average.load_state_dict(load_file(folder / f"{AVERAGE}.safetensors"))
            if at.scaler:
                learner.scaler.load_state_dict(at.scaler)
        return at

    def position(self) -> Position:
        """Where the last checkpoint stands; a fresh Position without one.

        Raises TrainingError if it is damaged.
        """
        folder = self.find("last")
        if folder is None:
            return Position()
        with _explained(folder):
            return Position(**json.loads((folder / "state.json").read_text("utf-8")))

    def _free(self, name: str) -> str:
        """The name, or one like it while a checkpoint has it: that one counts until then."""
        taken = self._counting()
        while self._folder / name in taken:
            name += "-again"
        return name

    def _prune(self) -> None:
        kept = self._counting()
        for folder in self._folder.iterdir():
            if folder.is_dir() and NAME.fullmatch(folder.name) and folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        self._run.keep_below("checkpoints", {folder.name for folder in kept if folder is not None})

    def _counting(self) -> set[Path | None]:
        return {pointed(self._folder, which) for which in ("last", "best")}


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise TrainingError(
            f"checkpoint {folder} is damaged ({one_line(error)}): "
            "remove it, or run with --restart to train anew"
        ) from None


def split_weights(model: Distillation) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's weights, without prefix, and those of everything around it."""
    weights = _copied(model.state_dict())
    student = {k.removeprefix(BACKBONE): v for k, v in weights.items() if k.startswith(BACKBONE)}
    heads = {k: v for k, v in weights.items() if not k.startswith(BACKBONE)}
    return student, heads


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, each in memory of its own: the training goes on with the others, and safetensors
    refuses tied weights that share theirs."""
    return {name: _copy(value) for name, value in tensors.items()}


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def load_weights(model: Distillation, folder: Path) -> None:
    """Load student.safetensors and heads.safetensors of a checkpoint folder."""
    student = load_file(folder / "student.safetensors")
    heads = load_file(folder / "heads.safetensors")
    model.load_state_dict({**{BACKBONE + k: v for k, v in student.items()}, **heads})


def load_student_weights(student: Student, folder: Path, *, averaged: bool = False) -> None:
    """Load backbone, node layer and classifier of the student alone, or their moving average.

    Raises UsageError if the files are damaged or hold another student, or there is no average.
    """
    if averaged and not (folder / f"{AVERAGE}.safetensors").is_file():
        raise UsageError(f"checkpoint {folder} has no moving average: set distill.ema_decay, train")
    try:
        if averaged:
            student.load_state_dict(load_file(folder / f"{AVERAGE}.safetensors"))
            return
        backbone = load_file(folder / "student.safetensors")
        heads = load_file(folder / "heads.safetensors")
        own = {k.removeprefix(STUDENT): v for k, v in heads.items() if k.startswith(STUDENT)}
        student.load_state_dict({**{f"backbone.{k}": v for k, v in backbone.items()}, **own})
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UsageError(f"checkpoint {folder} does not load: {one_line(error)}") from None


def checkpoint_folder(run: RunFolder, which: str) -> Path:
    """The folder of the `last` or `best` checkpoint. Raises UsageError without one."""
    checkpoints = Checkpoints.of(run)
    checkpoints.fetch(which)
    folder = checkpoints.find(which)
    if folder is None:
        raise UsageError(
            f"{run.where}/checkpoints has no {which} checkpoint: train first, `egapipe distill`"
        )
    return folder


def _optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """By the number of the parameter and the name of the state: `3.momentum_buffer`; of further
    optimisers behind their own number: `1/3.exp_avg`."""
    return {
        f"{_prefix(number)}{index}.{name}": _copy(value)
        for number, optimizer in enumerate(optimizers)
        for index, entries in _state(optimizer).items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def _load_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        place, _, name = key.partition(".")
        number, _, index = place.rpartition("/")
        states[int(number or 0)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        # In the order in memory of their parameters: another one could round otherwise.
        for parameter, entries in optimizer.state.items():
            for name, value in entries.items():
                if value.shape == parameter.shape:
                    entries[name] = torch.empty_like(parameter).copy_(value)


def _state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return state


def _prefix(number: int) -> str:
    return f"{number}/" if number else ""
