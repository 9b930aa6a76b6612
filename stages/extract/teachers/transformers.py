"""Teachers from the `transformers` library: safetensors weights, no code from the hub."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from egapipe.pipeline.config.teachers import TransformersTeacher as Settings
from egapipe.pipeline.errors import TeacherError
from egapipe.pipeline.machine.quiet import quiet
from egapipe.pipeline.results.durable import durable
from egapipe.stages.extract.teachers.base import UNKNOWN, Loading, Outputs
from egapipe.stages.extract.teachers.location import located
from egapipe.stages.extract.teachers.network import NetworkTeacher
from egapipe.stages.extract.teachers.outputs import (
    LOGITS,
    asked_outputs,
    first_tensor,
    places,
    shaped,
)
from egapipe.stages.extract.teachers.pooling import before_patches, embed, resolve_pooling
from egapipe.stages.extract.teachers.precision import narrow, widen
from egapipe.stages.extract.teachers.processor import read_preprocessing
from egapipe.stages.extract.teachers.taps import KeptOutputs, submodule
from egapipe.stages.extract.teachers.weights import weights_sha256_of

# What the library raises, depending on which file is wrong.
_UNFIT = (SafetensorError, OSError, ValueError, TypeError, RuntimeError, ImportError, KeyError)

# The name of the tap that is no submodule of the tower.
_TOWER = "the tower"

# How the library's classes of image classifiers are called.
_CLASSIFIER = "ForImageClassification"


class Encoder(nn.Module):
    """A vision tower, what is behind it (a projection or a classifier), a resolved pooling."""

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        input_size: tuple[int, int],
        pooling: str | None = None,
    ) -> None:
        """pooling: what the settings come to, where that is known. Raises ValueError if the model
        does not take such images, or has no such outputs."""
        super().__init__()
        self.vision = _tower(model)
        # The classifier's own forward pass decides what it makes of the tower's output.
        self.classifier = model if settings.logits else None
        self._others = asked_outputs(settings)
        inner = {name: one for name, one in self._others.items() if one.shape != LOGITS}
        self._places = places(inner)
        tapped = {path: submodule(self.vision, path) for path in self._places}
        self._taps = KeptOutputs({_TOWER: self.vision} | tapped if settings.logits else tapped)
        self.projection: nn.Module | None = getattr(model, "visual_projection", None)
        self._patches = _patches(self.vision.config, input_size)
        self.pooling = pooling or self._resolved(settings, input_size)
        if self.pooling != "projection":
            self.projection = None

    def forward(self, x: Tensor) -> Outputs:
        """Encode normalised images [B, 3, H, W]: embedding [B, D], and the other outputs."""
        hidden, logits = self._run(x)
        outputs = {"embedding": embed(self.pooling, hidden, self._patches, self.projection)}
        height, width = x.shape[2:]
        own: dict[str | None, Any] = {LOGITS: logits, None: hidden.last_hidden_state}
        taken = {at: self._taps.take(at, setting) for at, setting in self._places.items()}
        for name, other in self._others.items():
            at = other.at
            given = own[at] if at is None or other.shape == LOGITS else first_tensor(taken[at])
            prefix = before_patches(given, self._patches) if _is_tokens(given) else 0
            outputs[name] = shaped(given, other, prefix, (height, width))
        return outputs

    def _resolved(self, settings: Settings, input_size: tuple[int, int]) -> str:
        """The pooling that the settings come to for what the network gives."""
        low = settings.precision != "float32"
        with torch.autocast("cpu", getattr(torch, settings.precision), enabled=low):
            hidden = self._trial(input_size)
        family = self.vision.config.model_type
        return resolve_pooling(settings.pooling, family, hidden, self._patches, self.projection)

    @torch.inference_mode()
    def _trial(self, input_size: tuple[int, int]) -> Any:
        try:
            return self._run(torch.zeros(1, 3, *input_size))[0]
        except (ValueError, RuntimeError) as error:
            height, width = input_size
            raise ValueError(
                f"it does not take the {height} x {width} images that its preprocessor_config.json "
                f"asks for: {error}"
            ) from error

    def _run(self, x: Tensor) -> tuple[Any, Tensor | None]:
        """What the tower gives, and the logits if they are wanted."""
        if self.classifier is not None:
            logits = self.classifier(pixel_values=x).logits
            return self._taps.take(_TOWER), logits
        return self._hidden(x), None

    def _hidden(self, x: Tensor) -> Any:
        if self.vision.config.model_type != "vit_mae" or self._patches is None:
            return self.vision(pixel_values=x)
        # A masked autoencoder drops random patches unless told to keep all, in their order.
        self.vision.config.mask_ratio = 0.0
        order = torch.arange(self._patches, dtype=torch.float32, device=x.device)
        return self.vision(pixel_values=x, noise=order.expand(len(x), -1))


def load(settings: Settings, loading: Loading = UNKNOWN) -> NetworkTeacher:
    """Load a vision encoder, see `load_teacher`."""
    with located(settings.model) as (source, local), quiet(local), _explained(settings.model):
        where = {"revision": settings.revision} if settings.revision and not local else {}
        config = _read_config(settings.model, source, where)
        preprocessing = read_preprocessing(settings.model, source, where)
        model = _load_model(settings, config, source, where)
        known = None if loading.known is None else loading.known.spec.get("resolved_pooling")
        encoder = Encoder(model, settings, preprocessing.input_size, known)
        encoder.eval().requires_grad_(False)
        spec = _spec(settings, encoder, _files(source, where))
        narrow(encoder, settings.precision)
        return NetworkTeacher(spec, encoder, preprocessing, loading)


def _spec(settings: Settings, encoder: Encoder, files: Sequence[Path]) -> dict[str, Any]:
    return {
        **durable(settings),
        "resolved_pooling": encoder.pooling,
        "class": type(encoder.vision).__name__,
        "sha256": weights_sha256_of(files, encoder, f"transformers {transformers.__version__}"),
    }


def _files(source: str, where: dict[str, str]) -> list[Path]:
    """The files that a model's weights were read from, and its configuration, which says how."""
    config = Path(str(cached_file(source, "config.json", **where)))
    return [*sorted(config.parent.glob("*.safetensors")), config]


def _read_config(model: str, source: str, where: dict[str, str]) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code=False, **where)
    except OSError as error:
        raise TeacherError(
            f"teacher {model} is no folder here, and the hub gave no config.json for it: check the "
            f"name, teacher.revision and the connection ({_first_line(error)})"
        ) from error


def _load_model(settings: Settings, config: Any, source: str, where: dict[str, str]) -> nn.Module:
    model, info = _model_class(config, settings.logits).from_pretrained(
        source,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **where,
    )
    if getattr(model, "main_input_name", "") != "pixel_values" and not hasattr(
        model, "vision_model"
    ):
        raise TeacherError(
            f"teacher {settings.model} is a {type(model).__name__}: not an image encoder"
        )
    _check_complete(settings, model, sorted(info["missing_keys"]))
    widen(model, settings.precision)
    return model.eval()  # type: ignore[no-any-return]


def _model_class(config: Any, logits: bool) -> Any:
    """AutoModel, but the class with the projection where the weights were saved from one.

    Raises ValueError if logits are wanted of weights that were saved without a classifier.
    """
    if logits:
        heads = [n for n in config.architectures or [] if n.endswith(_CLASSIFIER)]
        if not heads:
            saved = ", ".join(config.architectures or ["a model without a name"])
            raise ValueError(f"its weights are of {saved}, no classifier: set teacher.logits=false")
        return getattr(transformers, heads[0])
    names = [n for n in config.architectures or [] if n.endswith("VisionModelWithProjection")]
    return getattr(transformers, names[0]) if names else transformers.AutoModel


def _check_complete(settings: Settings, model: Any, missing: list[str]) -> None:
    """Weights that a file lacks were drawn at random: never encode with them."""
    if hasattr(model, "vision_model"):
        missing = [k for k in missing if k.startswith(("vision_model.", "visual_projection."))]
    pooler = [k for k in missing if k.startswith("pooler.")]
    if pooler and pooler == missing and settings.pooling in ("auto", "cls", "mean"):
        model.pooler = None
    elif missing:
        raise TeacherError(
            f"teacher {settings.model} lacks {len(missing)} of {type(model).__name__}'s weights "
            f"({', '.join(missing[:3])}{', ...' if missing[3:] else ''}): "
            + ("set teacher.pooling to cls or mean" if pooler else "its files are incomplete")
        )


def _is_tokens(given: Any) -> bool:
    return isinstance(given, Tensor) and given.ndim == 3


def _tower(model: Any) -> Any:
    """The image side of a text-and-image model, the body of a classifier, any other as it is."""
    # A body has a `base_model` too: some part of it.
    body = model.base_model if type(model).__name__.endswith(_CLASSIFIER) else model
    return getattr(body, "vision_model", body)


def _patches(config: Any, input_size: tuple[int, int]) -> int | None:
    """Patch tokens of an input, or None for a network without patches."""
    patch = getattr(config, "patch_size", None)
    if patch is None:
        return None
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return int((input_size[0] // height) * (input_size[1] // width))


@contextlib.contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn what the library raises for a missing or unfit model into one line."""
    try:
        yield
    except _UNFIT as error:
        raise TeacherError(f"teacher {model} cannot be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).strip().splitlines()), type(error).__name__)
