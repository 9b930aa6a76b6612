"""What is stored beside the embedding: which tensors of a network, and in which shape."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from egapipe.pipeline.config.teachers import NetworkTeacher as Settings
from egapipe.stages.extract.teachers.grid import to_grid

LOGITS = "logits"


class Output(NamedTuple):
    """One output. at: where the network has it; None: what the embedding is made of. shape: as in
    `OutputConfig`, or `logits`, a vector as it is. setting: that asks for it."""

    at: str | None
    shape: str | None
    setting: str

    @property
    def place(self) -> str:
        """The setting that names where it is."""
        return self.setting if self.shape == LOGITS else f"{self.setting}.at"


def asked_outputs(settings: Settings) -> dict[str, Output]:
    """What a configuration asks for, by name; what `grid` and `logits` are short for first.

    Logits of `True` are where whoever runs the network says.
    """
    short = {}
    if side := getattr(settings, "grid", None):
        short["grid"] = Output(None, f"grid {side}", "teacher.grid")
    if place := getattr(settings, LOGITS, None):
        short[LOGITS] = Output(
            place if isinstance(place, str) else LOGITS, LOGITS, "teacher.logits"
        )
    outputs = {
        name: Output(output.at, output.shape, f"teacher.outputs.{name}")
        for name, output in settings.outputs.items()
    }
    return {**short, **outputs}


def places(outputs: Mapping[str, Output]) -> dict[str, str]:
    """Where a network has the outputs that are not made of its own -> the setting that says so."""
    return {one.at: one.place for one in outputs.values() if one.at is not None}


def shaped(given: Any, output: Output, prefix: int, image: tuple[int, int]) -> Tensor:
    """What a network gives, in the shape that is asked for: [B, ...].

    prefix: tokens before the patches. image: height and width of the input. Raises ValueError if it
    does not go into that shape.
    """
    value = first_tensor(given)
    kind, _, number = (output.shape or "").partition(" ")
    match kind:
        case "logits":
            return check_logits(given)
        case "vector":
            return _vector(value, prefix, output.setting)
        case "tokens":
            return _tokens(value, output.setting)
        case "frames":
            return _frames(_tokens(value, output.setting), int(number), output.setting)
        case "grid":
            return to_grid(value, int(number), prefix, image, output.setting)
    return value


def first_tensor(output: Any) -> Tensor:
    """A tensor, or the first of several. Raises ValueError if the output is none."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"its output is a {type(output).__name__}, not one tensor")  # noqa: TRY004
    return output


def check_logits(logits: Any) -> Tensor:
    """The same [B, K]. Raises ValueError if they are anything else."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"its logits are {given}, not one number a class: name another output")
    return logits


def _vector(value: Tensor, prefix: int, setting: str) -> Tensor:
    """[B, D]: the mean of maps, or of the tokens of patches."""
    if value.ndim == 4:
        return value.mean(dim=(2, 3))
    if value.ndim == 3 and value.shape[1] > prefix:
        return value[:, prefix:].mean(dim=1)
    if value.ndim == 2:
        return value
    raise _unfit(value, setting, "a vector, tokens or maps")


def _tokens(value: Tensor, setting: str) -> Tensor:
    """[B, T, D], of maps row by row."""
    if value.ndim == 4:
        return value.flatten(2).mT
    if value.ndim != 3:
        raise _unfit(value, setting, "tokens or maps")
    return value


def _frames(tokens: Tensor, count: int, setting: str) -> Tensor:
    if count > tokens.shape[1]:
        raise _unfit(tokens, setting, f"{count} tokens and more")
    return adaptive_avg_pool1d(tokens.mT, count).mT


def _unfit(value: Tensor, setting: str, wanted: str) -> ValueError:
    return ValueError(
        f"its output has the shape {list(value.shape)}: {setting}.shape needs {wanted}, set another"
    )
