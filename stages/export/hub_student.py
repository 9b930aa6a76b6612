"""A student as a module of the hub: `Student.from_pretrained(FOLDER or "user/name")`.

For the networks that no other library has. The folder is that of `--format safetensors`.
"""

from pathlib import Path
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.distill.model.student import Student as Network
from egapipe.stages.export.folder import CONFIG, OURS, WEIGHTS, load_exported
from egapipe.stages.export.module import Inference
from egapipe.stages.export.weights import save_student


class Student(
    Inference,
    PyTorchModelHubMixin,
    library_name="egapipe",
    tags=["knowledge-distillation", "embedding-graph-alignment"],
):
    """uint8 RGB images [B, 3, H, W] to logits [B, C], nodes [B, D] and features [B, F].

    spec: what it is made of; `spec.size` is (H, W), `spec.class_names` the classes.
    """

    def __init__(self, student: Network, spec: StudentSpec) -> None:
        super().__init__(student)
        self.spec = spec

    def _save_pretrained(self, save_directory: Path) -> None:
        save_student(self.student, self.spec, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        trust_remote_code: bool = False,
        **_of_config: Any,
    ) -> Self:
        """See `load_exported`: nothing that the folder names is imported unless it is trusted."""
        if Path(model_id).is_dir():
            folder = _ours(Path(model_id))
        else:
            options = {
                "revision": revision,
                "cache_dir": cache_dir,
                "force_download": force_download,
                "local_files_only": local_files_only,
                "token": token,
            }
            folder = _brought(model_id, options)
        student, spec = load_exported(folder, trust_remote_code=trust_remote_code)
        return cls(student.to(map_location), spec).eval()


def _ours(folder: Path) -> Path:
    """Where `egapipe push` puts it beside a checkpoint of another library, else the folder."""
    return folder / OURS if (folder / OURS / CONFIG).is_file() else folder


def _brought(name: str, options: dict[str, Any]) -> Path:
    """The same of a repository, its two files brought."""
    place = f"{OURS}/"
    try:
        config = hf_hub_download(name, f"{place}{CONFIG}", **options)
    except EntryNotFoundError:
        place = ""
        config = hf_hub_download(name, CONFIG, **options)
    hf_hub_download(name, f"{place}{WEIGHTS}", **options)
    return Path(config).parent
