"""MedMNIST archives become manifests, whichever server gives them."""

from __future__ import annotations

import http.server
import io
import os
import re
import shutil
import threading
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.layouts import make_study, refusal
from scanbook.data import adapters, images, manifest
from scanbook.data.adapters import medmnist


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


def retina(**keys: Any) -> dict[str, Any]:
    return {"adapter": "medmnist", "flag": "retinamnist", **keys}


def archive(colour: bool = True, classes: int = 5, size: int = 28) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    arrays = {}
    for key, count in (("train", 20), ("val", 6), ("test", 7)):
        arrays[f"{key}_images"] = rng.integers(
            0, 256, (count, size, size, 3) if colour else (count, size, size), np.uint8
        )
        arrays[f"{key}_labels"] = rng.permutation(np.arange(count) % classes).astype(np.uint8)[:, None]
    return arrays


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(("flag", "colour"), [("retinamnist", True), ("pneumoniamnist", False)])
def test_an_archive_keeps_every_pixel_label_and_split(flag: str, colour: bool, tmp_path: Path) -> None:
    names = medmnist.ARCHIVES[flag].classes
    arrays = archive(colour, len(names))
    study = make_study(save(tmp_path / "local.npz", arrays), {"adapter": "medmnist", "flag": flag})
    listing = adapters.load(study)
    assert listing.classes == names and set(Counter(listing.frame["split"])) == set(manifest.SPLITS)
    for key, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = listing.rows(split)
        assert np.array_equal(listing.y[rows], arrays[f"{key}_labels"][:, 0])
        decoded = np.stack([images.read(Path(path)) for path in listing.frame["path"].iloc[rows]])
        expected = arrays[f"{key}_images"]
        assert np.array_equal(decoded, expected if colour else np.stack([expected] * 3, -1))
    again = adapters.load(study)
    assert again.frame.equals(listing.frame) and again.fingerprint() == listing.fingerprint()


def without(arrays: dict[str, np.ndarray], key: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name != key}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda arrays: without(arrays, "val_images"), "val_images"),
        (lambda arrays: arrays | {"val_labels": arrays["val_labels"][:3]}, "val_labels"),
        (lambda arrays: arrays | {"test_labels": arrays["test_labels"] + 3}, "test_labels reach from 3 to 7"),
        (lambda arrays: arrays | {"train_labels": np.tile(arrays["train_labels"], 2)}, "train_labels"),
        (lambda arrays: arrays | {"train_images": arrays["train_images"].astype(float)}, "float64"),
        (lambda arrays: arrays | {"train_images": np.zeros((20, 28, 28, 28), np.uint8)}, "(20, 28, 28, 28)"),
        (lambda arrays: arrays | {"train_labels": arrays["train_labels"].astype(object)}, "allow_pickle"),
    ],
)
def test_an_archive_of_another_layout_is_one_line(change: Any, named: str, tmp_path: Path) -> None:
    path = save(tmp_path / "local.npz", change(archive()))
    message = refusal(make_study(path, retina()))
    assert str(path) in message and "is not a MedMNIST archive" in message and named in message
    store = Path(os.environ["SCANBOOK_STORE"])
    assert not [folder for folder in (store / "medmnist").iterdir() if folder.is_dir()], "nothing half-unpacked stays"


@pytest.mark.parametrize("content", ["text", "nothing", "npy", "cut", "flipped"])
def test_what_is_no_archive_is_one_line(content: str, tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.npz", archive()).read_bytes()
    middle = len(whole) // 2
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path = tmp_path / "local.npz"
    path.write_bytes(
        {"text": b"<html>404</html>", "nothing": b"", "npy": buffer.getvalue(), "cut": whole[:middle]}.get(
            content, whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 64]) + whole[middle + 64 :]
        )
    )
    message = refusal(make_study(path, retina()))
    assert str(path) in message and "is not a MedMNIST archive" in message


@pytest.mark.parametrize("member", ["train_images.npy", "test_images.npy", "val_labels.npy"])
@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_the_checksum_of_each_member_is_checked(pack: Callable[..., None], member: str, tmp_path: Path) -> None:
    path = tmp_path / "local.npz"
    pack(path, **archive())
    data = bytearray(path.read_bytes())
    entry = data.rindex(member.encode()) - 46  # of the directory at the archive's end
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 16] ^= 1  # its CRC
    path.write_bytes(data)
    assert "is not a MedMNIST archive" in refusal(make_study(path, retina()))


def test_an_unknown_archive_or_a_folder_is_one_line(tmp_path: Path) -> None:
    message = refusal(make_study(tmp_path, retina()))
    assert str(tmp_path) in message and "is not a file" in message
    message = refusal(make_study(tmp_path, {"adapter": "medmnist", "flag": "nosuchmnist"}))
    assert "'nosuchmnist'" in message and "retinamnist" in message


@pytest.mark.parametrize("size", [64, 224])
def test_larger_sizes_keep_every_pixel_and_their_size_is_checked(size: int, tmp_path: Path) -> None:
    arrays = archive(size=size)
    path = save(tmp_path / "local.npz", arrays)
    listing = adapters.load(make_study(path, retina(size=size)))
    rows = listing.rows("test")
    assert np.array_equal(images.read(Path(listing.frame["path"][rows[-1]])), arrays["test_images"][-1])
    assert np.array_equal(listing.y[rows], arrays["test_labels"][:, 0])
    message = refusal(make_study(path, retina()))
    assert f'SET="dataset.size={size}"' in message and f"(20, {size}, {size}, 3)" in message
    assert str(path) in message and "download" not in message


def test_a_local_archive_of_another_md5_is_listed_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "local.npz", archive())
    digest = md5(path.read_bytes()).hexdigest()
    facts = adapters.load(make_study(path, retina())).facts
    assert not facts["names_groups"], "the archive names no patients"
    (note,) = facts["notes"]
    assert digest in note and medmnist.ARCHIVES["retinamnist"].md5[28] in note
    official(monkeypatch, 28, digest)
    assert adapters.load(make_study(path, retina())).facts["notes"] == []


def test_an_archive_is_unpacked_image_by_image(tmp_path: Path) -> None:
    images_of_one_split = np.zeros((200, 128, 128, 3), np.uint8)
    arrays = archive(size=128) | {"train_images": images_of_one_split, "train_labels": np.zeros((200, 1), np.uint8)}
    path = save(tmp_path / "local.npz", arrays)
    with zipfile.ZipFile(path) as opened:
        tracemalloc.start()
        count = sum(int(image.max()) == 0 for image in medmnist._images(opened, "train", 128, 200))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 200 and peak < images_of_one_split.nbytes / 5


def test_md5s_are_those_of_one_file_each() -> None:
    sums = [checksum for known in medmnist.ARCHIVES.values() for checksum in known.md5.values()]
    assert len(set(sums)) == len(sums) == 4 * len(medmnist.ARCHIVES)
    assert all(re.fullmatch("[0-9a-f]{32}", checksum) for checksum in sums)


class Servers:
    """Two servers of archives, on this machine, and the requests they received."""

    def __init__(self, root: Path) -> None:
        self.root, self.requests = root, []
        for name in ("first", "second"):
            (root / name).mkdir(parents=True)

    def put(self, server: str, file: str, arrays: dict[str, np.ndarray]) -> str:
        """Places an archive and returns its MD5."""
        return md5(save(self.root / server / file, arrays).read_bytes()).hexdigest()


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    made = Servers(tmp_path / "servers")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(made.root))

        def do_GET(self) -> None:
            made.requests.append(self.path)
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(medmnist, "ZENODO", here + "/first/{file}")
    monkeypatch.setattr(medmnist, "MIRRORS", {})
    monkeypatch.setattr(medmnist, "SAME_HOST", here + "/second/{file}")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "data"))
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def official(monkeypatch: pytest.MonkeyPatch, size: int, digest: str) -> None:
    known = medmnist.ARCHIVES["retinamnist"]
    changed = medmnist.Archive(known.classes, known.md5 | {size: digest})
    monkeypatch.setitem(medmnist.ARCHIVES, "retinamnist", changed)


def fetched(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("size", "file"), [(28, "retinamnist.npz"), (64, "retinamnist_64.npz")])
def test_a_download_is_checked_kept_and_not_fetched_again(
    size: int, file: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(monkeypatch, size, servers.put("first", file, archive(size=size)))
    study = make_study("", retina(size=size))
    first = adapters.load(study)
    assert fetched(tmp_path) == [file] and servers.requests == [f"/first/{file}"]
    assert adapters.load(study).frame.equals(first.frame) and len(servers.requests) == 1


@pytest.mark.parametrize("fault", ["missing", "another file"])
def test_the_second_source_is_taken_when_the_first_fails(
    fault: str, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(monkeypatch, 28, servers.put("second", "retinamnist.npz", archive()))
    if fault == "another file":
        servers.put("first", "retinamnist.npz", archive(colour=False))
    listing = adapters.load(make_study("", retina()))
    assert len(listing.frame) == 33 and fetched(tmp_path) == ["retinamnist.npz"]
    assert servers.requests == ["/first/retinamnist.npz", "/second/retinamnist.npz"]


def test_when_no_source_serves_one_line_names_each_and_nothing_is_left(servers: Servers, tmp_path: Path) -> None:
    servers.put("second", "retinamnist.npz", archive())
    message = refusal(make_study("", retina()))
    assert "/first/retinamnist.npz (HTTP 404)" in message and "/second/retinamnist.npz (another MD5" in message
    assert medmnist.ARCHIVES["retinamnist"].md5[28] in message and "DATA=path/to/retinamnist.npz" in message
    assert fetched(tmp_path) == []


def test_without_a_network_one_line_says_how_to_go_on(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist, "ZENODO", "http://127.0.0.1:9/{file}")
    monkeypatch.setattr(medmnist, "SAME_HOST", "http://127.0.0.1:9/again/{file}")
    message = refusal(make_study("", retina()))
    assert message.count("ConnectionError") == 2 and "connect" in message and "DATA=path/to/retinamnist.npz" in message


def test_a_disk_that_cannot_be_written_is_not_taken_for_the_network(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "file"))
    message = refusal(make_study("", retina()))
    assert "cannot write" in message and "SCANBOOK_DATA" in message and not servers.requests


def test_every_size_has_a_second_source() -> None:
    for size in (28, 64, 128, 224):
        sources = [medmnist.ZENODO, *medmnist.MIRRORS.get(size, ()), medmnist.SAME_HOST]
        assert len(set(sources)) == len(sources) >= 2 and all("{file}" in source for source in sources)


@pytest.mark.slow
def test_the_official_retinamnist(real_data: Path) -> None:
    path = real_data / "retinamnist.npz"
    known = medmnist.ARCHIVES["retinamnist"]
    assert md5(path.read_bytes()).hexdigest() == known.md5[28]
    listing = adapters.load(make_study(path, retina()))
    counts = listing.frame["split"].value_counts()
    assert (counts["train"], counts["validation"], counts["test"]) == (1080, 120, 400)
    with np.load(path) as arrays:
        rows = listing.rows("test")
        assert np.array_equal(listing.y[rows], arrays["test_labels"][:, 0])
        assert np.array_equal(images.read(Path(listing.frame["path"][rows[-1]])), arrays["test_images"][-1])


@pytest.mark.slow
def test_the_official_md5_catches_a_rebuilt_archive(real_data: Path, servers: Servers) -> None:
    shutil.copy(real_data / "pneumoniamnist_rebuilt.npz", servers.root / "first" / "pneumoniamnist.npz")
    message = refusal(make_study("", retina(flag="pneumoniamnist")))
    assert "another MD5" in message and medmnist.ARCHIVES["pneumoniamnist"].md5[28] in message
