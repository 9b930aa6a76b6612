"""What a command need not wait for is not imported: each takes from half a second to two."""

import subprocess
import sys

START = """
import sys
from egapipe.pipeline.config import load_config
from egapipe.pipeline.datasets import open_split
from egapipe.stages import distill, extract

config = load_config("quickstart")
"""
END = """
named = {"faiss", "pandas", "ray", "scipy.stats", "sklearn", "torch._dynamo", "transformers"}
print(*sorted(named & set(sys.modules)))
"""
EXTRACTION = "extract.run, extract.prepare, open_split(config, 'train').image(0)"
# Its shapes are compared on the meta device first.
STUDENT = """
from egapipe.stages.distill.model.spec import StudentSpec
parts = {"student": config.distill.student.model_dump(), "features": 64, "dim": 64, "classes": 10}
more = {"class_names": None, "size": [8, 8], "normalize": {"mean": [0.5] * 3, "std": [0.5] * 3}}
spec = StudentSpec.read({**parts, **more}, "here")
shapes = {name: tuple(value.shape) for name, value in spec.build().state_dict().items()}
spec.build_for(shapes, "here", trust_remote_code=False)
distill.run, distill.load_student
"""


def imported_by(code: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", START + code + END], capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def test_the_digits_and_extraction_need_no_library_of_a_teacher() -> None:
    assert imported_by(EXTRACTION) == []


def test_a_student_that_is_loaded_needs_no_compiler() -> None:
    assert imported_by(STUDENT) == []


def test_help_waits_for_no_library_but_the_command_line_s() -> None:
    code = """
import contextlib, io, sys
from egapipe.pipeline import cli
sys.argv = ["egapipe", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    cli.main()
print(*sorted({"torch", "ray", "numpy", "pyarrow", "zarr", "pydantic", "PIL"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
