"""Networks of the user's own, by module:callable."""

import subprocess
import sys

import pytest
from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students import build_student, feature_width

NETWORKS = """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, features=5):
        super().__init__(nn.Flatten(), nn.Linear(3 * 16, features))

class Zoo:
    tiny = Tiny

def fails(size):
    raise RuntimeError("two\\nlines")

def number():
    return 3

constant = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory; what a test imports from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def networks(here):
    (here / "my_networks.py").write_text(NETWORKS)
    return here


def message_of(name, args=None):
    with pytest.raises(UsageError) as caught:
        build_student(name, args or {})
    message = str(caught.value)
    assert "\n" not in message
    assert repr(name) in message
    return message


def test_a_module_of_the_current_directory(networks):
    student = build_student("my_networks:Tiny", {"features": 7})
    assert not hasattr(student, "num_features")
    assert feature_width(student, 4) == 7


def test_both_parts_may_be_dotted(networks):
    assert build_student("my_networks:Zoo.tiny", {})[1].out_features == 5
    assert isinstance(build_student("torch.nn:Identity", {}), nn.Identity)


def test_a_module_may_import_its_neighbours_later(networks):
    (networks / "late.py").write_text(
        "def make():\n    import my_networks\n    return my_networks.Tiny(2)\n"
    )
    assert feature_width(build_student("late:make", {}), 4) == 2


def test_an_installed_program_finds_the_current_directory_too(networks):
    """Such a program has the folder of its script on the path, not the current one."""
    program = networks / "bin" / "program.py"
    program.parent.mkdir()
    program.write_text(
        "from egapipe.stages.distill.students import build_student\n"
        "print(build_student('my_networks:Tiny', {}))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert "out_features=5" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["my_networks:", ":Tiny", "my_networks:Tiny()", "a b:c", "a::b"])
def test_a_malformed_name(networks, name):
    assert "not of the form module:callable" in message_of(name)


def test_a_module_that_is_not_there(here):
    message = message_of("no_such_module:Net")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in message
    assert str(here) in message


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("raise OSError('weights\\nare missing')", "OSError: weights are missing"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_fails_names_the_cause(here, source, cause):
    (here / "broken_module.py").write_text(source)
    assert cause in message_of("broken_module:Net")


def test_a_name_the_module_lacks_gives_the_nearest(networks):
    assert "my_networks has no 'Tiney', did you mean Tiny?" in message_of("my_networks:Tiney")
    assert message_of("my_networks:xyzzy").endswith("has no 'xyzzy'")
    assert "Zoo has no 'small'" in message_of("my_networks:Zoo.small")


def test_what_is_no_network(networks):
    assert "not callable but int" in message_of("my_networks:constant")
    assert "gives int: it must give a torch.nn.Module" in message_of("my_networks:number")


def test_what_fails_when_called(networks):
    assert "RuntimeError: two lines" in message_of("my_networks:fails", {"size": 3})
    assert "missing a required argument: 'size'" in message_of("my_networks:fails")
    assert "unexpected keyword argument 'wide'" in message_of("my_networks:Tiny", {"wide": 1})


def test_a_callable_without_a_signature_is_just_called():
    assert "gives dict: it must give a torch.nn.Module" in message_of("builtins:dict")
