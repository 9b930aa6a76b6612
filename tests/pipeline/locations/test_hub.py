"""Repositories of the hub: what is sent, and in which portions."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.locations import hub
from egapipe.pipeline.locations.hub import Content, Repository, is_plain, plan_commits
from tests.hub_server import TOKEN, Hub, running, use


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        use(found, monkeypatch)
        yield found


def contents(**sizes: int) -> dict[str, Content]:
    return {name: Content.of_bytes(name.encode() * size) for name, size in sizes.items()}


@given(st.lists(st.integers(0, 3 * 2**30), max_size=300))
def test_commits_have_every_file_once_in_its_order_and_few_at_a_time(sizes: list[int]) -> None:
    named = {str(place): size for place, size in enumerate(sizes)}
    groups = plan_commits(named)
    assert [path for group in groups for path in group] == list(named)
    for group in groups:
        assert 1 <= len(group) <= hub.MOST_FILES
        assert len(group) == 1 or sum(named[path] for path in group) <= hub.MOST_BYTES


def test_what_is_there_is_not_sent_again(server: Hub) -> None:
    repository = Repository("ann/cats", "dataset")
    repository.create(private=True)
    repository.create(private=False)
    files = contents(small=3, large=2000)
    assert repository.send(files, message="one") == 2
    sent = server.sent
    assert repository.send(files, message="two") == 0
    assert (server.sent, len(server.commits)) == (sent, 1)
    changed = {**files, "small": Content.of_bytes(b"other, and as long")}
    assert repository.send(changed, message="three", gone=["large", "never there"]) == 1
    assert server.commits[-1] == ["small", "large"]
    assert set(repository.files()) == {".gitattributes", "small"}


def test_an_interrupted_one_continues(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_FILES", 2)
    repository = Repository("ann/cats", "model")
    repository.create(private=False)
    files = contents(a=1, b=2000, c=3, d=2500, e=5)
    server.commits_left = 1
    # Its client tries again what the server may yet do.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(EgapipeError, match="run the same command again to continue") as raised:
        repository.send(files, message="x")
    assert "\n" not in str(raised.value)
    server.commits_left = None
    told: list[int] = []
    assert repository.send(files, message="x", told=told.append) == 3
    assert told == [2, 4, 5]
    assert server.commits == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("token", [None, "hf_another"])
def test_who_may_not_is_told_to_log_in(
    server: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    use(server, monkeypatch, token)
    with pytest.raises(UsageError, match="hf auth login") as raised:
        Repository("ann/cats", "model").create(private=False)
    assert "hf_another" not in str(raised.value)
    with pytest.raises(UsageError, match="there is no model repository ann/dogs"):
        Repository("ann/dogs", "model").files()
    with pytest.raises(UsageError, match="ann//cats"):
        Repository("ann//cats", "model").files()


def test_a_hub_that_is_not_there_is_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(EgapipeError, match="cannot be read") as raised:
        Repository("ann/cats", "model").files()
    assert "\n" not in str(raised.value)
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    "path", ["a/../b", "/a", "a//b", "..", "a\\..\\b", "C:/a", "a/.git/hooks", "a\nb", "", "a/b?"]
)
def test_a_path_that_leads_elsewhere_is_not_plain(path: str) -> None:
    assert not is_plain(path)
    assert is_plain("train.zarr/embedding/c/0/0/0")
