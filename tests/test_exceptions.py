"""Where any exception is caught: each place has a reason, and a new one is seen."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USERS = "code of the user's own raises anything"
DAMAGED = "decoders of damaged data raise a dozen types; what the machine raises is raised again"
ONNX = "onnxruntime has a class for each way a file can be damaged, and no base but Exception"
EXPORTER = "torch's exporter and its converter of opsets raise anything"
AGAIN = "to tidy up: it is raised again"
WAITED = "raised where the row is waited for; out of here it would be lost"
CLIENTS = "clients have types of their own; what is no trouble of the place is raised again"

PLACES = {
    "pipeline/disk/caches.py": [AGAIN],
    "pipeline/datasets/decoding/images.py": [
        DAMAGED,
        "an image that cannot be opened is left to `decode`, which says why",
        DAMAGED,
        DAMAGED,
    ],
    "pipeline/datasets/kinds/loading.py": [
        "datasets, the hub's client, fsspec and Arrow raise anything"
    ],
    "pipeline/machine/cluster.py": [
        "Ray raises a bare Exception where its node starts too slowly; others are raised again"
    ],
    "pipeline/machine/extras.py": [
        "an extension that is built for another torch raises RuntimeError"
    ],
    "pipeline/disk/files.py": [AGAIN],
    "pipeline/machine/imports.py": [USERS, USERS],
    "pipeline/locations/clients.py": [CLIENTS],
    "pipeline/locations/conditional.py": [CLIENTS],
    "pipeline/locations/remote.py": [CLIENTS],
    "pipeline/disk/replacing.py": [AGAIN],
    "pipeline/locations/hub.py": ["the hub's client has the errors of its HTTP library"],
    "pipeline/store/objects/base.py": [CLIENTS],
    "stages/distill/students/__init__.py": [USERS],
    "stages/distill/students/width.py": [USERS],
    "stages/doctor/examination.py": ["networks and drivers of others raise anything"],
    "stages/export/onnx_files.py": [EXPORTER, ONNX],
    "stages/export/written.py": [USERS],
    "stages/extract/decoding/child.py": [WAITED, WAITED, "whatever an error's own pickling raises"],
    "stages/extract/decoding/processes.py": [WAITED],
    "stages/extract/decoding/threads.py": [WAITED],
    "stages/extract/teachers/onnx.py": [ONNX],
    "stages/extract/workers/failures/faults.py": [
        "all that a worker meets is sorted; a bug is raised again"
    ],
    "stages/extract/teachers/python.py": [USERS],
    "stages/track/client.py": ["two trackers' clients and servers, said in one line"],
    "stages/track/tracker.py": ["two trackers' clients and servers; a tracker gates no result"],
}


def catches_any(node: ast.AST) -> bool:
    """`except Exception`, alone or among others, a bare `except`, `suppress(Exception)`."""
    if isinstance(node, ast.ExceptHandler):
        kinds = [node.type] if node.type is not None else []
        names = {n.id for kind in kinds for n in ast.walk(kind) if isinstance(n, ast.Name)}
        return not kinds or bool(names & {"Exception", "BaseException"})
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(ast.unparse(kind) in ("Exception", "BaseException") for kind in node.args)
    return False


def test_any_exception_is_caught_only_where_there_is_a_reason() -> None:
    found: Counter[str] = Counter()
    for folder in ("pipeline", "stages", "configs"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text("utf-8"))
            found[file.relative_to(ROOT).as_posix()] += sum(map(catches_any, ast.walk(tree)))
    assert +found == {file: len(reasons) for file, reasons in PLACES.items()}


def test_it_is_seen_however_it_is_written() -> None:
    for text in (
        "except Exception: pass",
        "except (OSError, BaseException) as error: pass",
        "except: pass",
        "except OSError: pass\nwith contextlib.suppress(Exception): pass",
    ):
        tree = ast.parse(f"try: pass\n{text}")
        assert sum(map(catches_any, ast.walk(tree))) == 1
    assert not any(map(catches_any, ast.walk(ast.parse("try: pass\nexcept OSError: pass"))))
