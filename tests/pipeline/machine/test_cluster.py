"""The Ray session: which Ray is taken, what it may listen on, and what is left of it.

Ray is one a process, so that most of this runs in processes of its own.
"""

import os
import subprocess
import sys
import textwrap

import pytest

from egapipe.pipeline.config.extract import ClusterConfig
from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.machine.cluster import quiet_environment, ray_session


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script in a fresh process without Ray, and without what Ray set in this one."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_ray_is_imported_before_it_is_needed() -> None:
    end = run("""
        import sys
        import egapipe.pipeline.machine.cluster
        assert "ray" not in sys.modules
    """)
    assert end.returncode == 0, end.stderr


def test_a_ray_of_ones_own_is_quiet_listens_on_loopback_alone_and_is_gone_afterwards() -> None:
    end = run("""
        import psutil
        from egapipe.pipeline.machine.cluster import ray_session
        from egapipe.pipeline.config.extract import ClusterConfig

        with ray_session(ClusterConfig(cpus=3)):
            import ray
            assert ray.cluster_resources()["CPU"] == 3
            assert ray.get(ray.remote(lambda: 7).remote()) == 7
            family = psutil.Process().children(recursive=True)
            listening = {
                c.laddr.ip
                for p in [psutil.Process(), *family]
                for c in p.net_connections("inet")
                if c.status == psutil.CONN_LISTEN
            }
            assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
            assert listening and family
        assert not ray.is_initialized()
        assert not psutil.wait_procs(family, timeout=60)[1]
    """)
    assert end.returncode == 0, end.stderr
    assert end.stdout == ""
    assert end.stderr == ""


@pytest.mark.parametrize("by", [pytest.param("environment", marks=pytest.mark.slow), "config"])
def test_a_cluster_is_joined_and_left_running(ray_cluster: None, by: str) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    script = f"""
        from egapipe.pipeline.machine.cluster import ray_session
        from egapipe.pipeline.config.extract import ClusterConfig

        with ray_session(ClusterConfig(address={address if by == "config" else None!r}, cpus=2)):
            import ray
            assert ray.cluster_resources()["CPU"] == 8
            assert ray.get_runtime_context().gcs_address == "{address}"
        assert not ray.is_initialized()
    """
    # As in every process of a cluster that listens on loopback and wants the user's token.
    environment = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    environment |= {"RAY_ADDRESS": address} if by == "environment" else {}
    end = run(script, **environment)
    assert end.returncode == 0, end.stderr
    assert ray.get(ray.remote(lambda: 7).remote()) == 7


def test_the_ray_of_this_process_is_joined_whatever_is_asked_for(ray_cluster: None) -> None:
    import ray

    with ray_session(ClusterConfig(address="no-such-host:6379")):
        assert ray.cluster_resources()["CPU"] == 8
    assert ray.is_initialized()


def test_an_address_where_nothing_answers_is_refused_in_one_line() -> None:
    end = run("""
        import time
        from egapipe.pipeline.machine.cluster import ray_session
        from egapipe.pipeline.config.extract import ClusterConfig
        from egapipe.pipeline.errors import UsageError

        for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "no-such-host.invalid:6379", "a:b"):
            began = time.monotonic()
            try:
                with ray_session(ClusterConfig(address=address)):
                    raise AssertionError(f"{address} was joined")
            except UsageError as error:
                assert time.monotonic() - began < 30
                print(error)
    """)
    assert end.returncode == 0, end.stderr
    lines = end.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("no Ray cluster answers at ")
        assert "start one with `ray start --head`" in line
        assert line.endswith("leave cluster.address and RAY_ADDRESS empty to start a local one")


@pytest.mark.parametrize(
    ("raised", "expected", "said"),
    [
        (
            Exception("The current node timed out during startup. This\ncould happen because"),
            EgapipeError,
            r"^Ray cannot be started on this machine: The current node timed out .*\. This$",
        ),
        (TypeError("a bug of ours"), TypeError, "a bug of ours"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line(
    raised: Exception, expected: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine so busy that its node needs more than half a minute, which no test waits for."""
    import ray

    def init(**options: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(expected, match=said), ray_session(ClusterConfig()):
        pass


def test_what_the_user_set_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    quiet_environment(local=False)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ
    quiet_environment(local=True)
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
