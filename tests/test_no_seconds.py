"""No test asserts how long something took: a loaded machine would fail it."""

import ast
from collections.abc import Iterator
from pathlib import Path

CLOCKS = {"monotonic", "perf_counter", "process_time", "processor_seconds"}
FILES = sorted(Path(__file__).parent.rglob("*.py"))


def clocks(node: ast.AST, known: set[str]) -> Iterator[str]:
    """Calls of a clock, and names that hold what one gave."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            called = part.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in CLOCKS:
                yield name
        elif isinstance(part, ast.Name) and part.id in known:
            yield part.id


def asserted(source: str) -> list[int]:
    """Lines that assert a time by a clock. To wait for something until a `deadline` is none."""
    found = []
    tree = ast.parse(source)
    known: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(clocks(node.value, set())):
            known |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        waits = "deadline" in ast.dump(node) if isinstance(node, ast.Assert) else False
        if isinstance(node, ast.Assert) and not waits and any(clocks(node.test, known)):
            found.append(node.lineno)
    return found


def test_no_test_asserts_seconds() -> None:
    found = {str(path): asserted(path.read_text("utf-8")) for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_such_an_assertion_would_be_found() -> None:
    source = """
began = time.monotonic()
assert time.monotonic() - began < 3
took = time.perf_counter() - began
assert took < 1
assert min(processor_seconds("--help") for _ in range(3)) < 0.5
assert time.monotonic() < deadline
"""
    assert asserted(source) == [3, 5, 6]
