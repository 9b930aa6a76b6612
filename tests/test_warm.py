"""A fork is a command like another: its own arguments, folder, environment, output and end."""

import json
import os
import signal
from pathlib import Path

from tests import warm

MINE = """
import atexit, json, os, sys, threading, time
atexit.register(print, "at the exit")
told = sys.argv[1]
if told == "wait":
    print("here", flush=True)
    time.sleep(60)
if told == "fail":
    raise ValueError("mine")
loaded = sorted(name for name in sys.modules if name.startswith("egapipe."))
said = {"cwd": os.getcwd(), "env": dict(os.environ), "loaded": loaded}
said["torch"] = "torch" in sys.modules
threading.Thread(target=lambda: (time.sleep(0.01), print(json.dumps(said)))).start()
print("loud", file=sys.stderr)
sys.exit(int(told))
"""


def run(folder: Path, told: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Return code, output and errors of a module of that code."""
    (folder / "mine.py").write_text(MINE)
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = warm.Process("mine", [told], cwd=folder, env=env, stdout=out, stderr=err)
        if told == "wait":
            while not (folder / "out").read_text():
                assert process.poll() is None
            process.kill()
        code = process.wait(60)
    return code, (folder / "out").read_text(), (folder / "err").read_text()


def test_it_runs_where_it_is_told_to_and_ends_with_its_own_code(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "MINE": "1"}
    for told in ("0", "3"):
        code, out, err = run(tmp_path, told, env)
        assert code == int(told)
        assert err == "loud\n"
        said, last = out.splitlines()
        assert last == "at the exit"
        assert json.loads(said) == {
            "cwd": str(tmp_path),
            "env": env,
            "loaded": [],
            "torch": True,
        }


def test_an_error_is_the_interpreters(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "fail")
    assert (code, out) == (1, "at the exit\n")
    assert err.endswith("ValueError: mine\n")


def test_a_kill_is_seen(tmp_path: Path) -> None:
    assert run(tmp_path, "wait")[0] == -signal.SIGKILL
