"""The store: a stage is built once for its inputs and code, and a half-written one is never used."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanbook import config, errors, runtime, store
from scanbook.errors import StoreError
from scanbook.store import fingerprints, stages

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=4,
)


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    forget()
    return tmp_path / "store"


def forget() -> None:
    """Let this process be like a new one, which has requested no stage."""
    stages._visited.clear()


def writes(text: str, calls: list[Path] | None = None) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "out.txt").write_text(text)
        if calls is not None:
            calls.append(folder)

    return build


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock"}


@settings(max_examples=25, deadline=None)
@given(PLAIN, PLAIN)
def test_fingerprints_are_equal_exactly_when_the_json_is(first: object, second: object) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (store.fingerprint(first) == store.fingerprint(second)) == same


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(values: dict[str, int]) -> None:
    assert store.fingerprint(values) == store.fingerprint(dict(reversed(values.items())))


def test_a_fingerprint_keeps_parts_apart_and_sees_the_middle_of_an_array() -> None:
    assert store.fingerprint("ab", "c") != store.fingerprint("a", "bc")
    assert store.fingerprint(b"ab", b"c") != store.fingerprint(b"a", b"bc")
    array = np.zeros(5000, np.int64)
    other = array.copy()
    other[2500] = 1
    assert str(array) == str(other) and store.fingerprint(array) != store.fingerprint(other)
    assert store.fingerprint({"size": np.int64(3)}) == store.fingerprint({"size": 3})
    assert store.fingerprint({"b", "a"}) == store.fingerprint(["a", "b"])
    assert store.fingerprint(config.Training()) != store.fingerprint(config.Training(epochs=1))


def test_a_value_without_content_is_refused_rather_than_confused() -> None:
    with pytest.raises(TypeError, match="object has no content"):
        store.fingerprint(object())


def test_a_stage_is_built_once_and_keeps_its_inputs(own_store: Path) -> None:
    calls: list[Path] = []
    first = store.stage("demo", {"a": 1}, writes("one", calls), "scanbook.errors")
    again = store.stage("demo", {"a": 1}, writes("two", calls), "scanbook.errors")
    assert first == again and len(calls) == 1
    assert (first / "out.txt").read_text() == "one"
    assert json.loads((first / store.INPUTS).read_text())["inputs"] == {"a": 1}
    assert 0 <= store.seconds(first) < 60
    assert first.parent == own_store / "demo"


def test_other_inputs_kinds_code_and_versions_are_other_stages(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = [
        store.stage("demo", {"a": 1}, writes("x"), "scanbook.errors"),
        store.stage("demo", {"a": 2}, writes("x"), "scanbook.errors"),
        store.stage("other", {"a": 1}, writes("x"), "scanbook.errors"),
        store.stage("demo", {"a": 1}, writes("x"), "scanbook.evaluation.seeds"),
    ]
    assert len(set(built)) == 4
    built += [store.stage("demo", {"a": 1}, writes("x"), "scanbook.data.images")]
    monkeypatch.setattr(runtime.machine, "version", lambda name: "0")
    built += [store.stage("demo", {"a": 1}, writes("x"), "scanbook.data.images")]
    assert len(set(built)) == 6
    assert store.stage("demo", {"a": 1}, writes("x"), "scanbook.errors") == built[0], "it imports no package"


def test_a_crash_while_building_leaves_nothing(own_store: Path) -> None:
    def crash(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        store.stage("demo", {}, crash, "scanbook.errors")
    assert everything_below(own_store) == {"demo"}
    folder = store.stage("demo", {}, writes("whole"), "scanbook.errors")
    assert everything_below(folder) == {"out.txt", store.INPUTS}


def test_the_remains_of_a_killed_process_are_removed_by_the_next(own_store: Path) -> None:
    program = (
        "import os, sys; from scanbook import store\n"
        "def die(folder):\n    (folder / 'half.txt').write_text('half'); os._exit(9)\n"
        "store.stage('demo', {}, die, 'scanbook.errors')"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    (remains,) = [path for path in (own_store / "demo").iterdir() if path.is_dir()]
    assert remains.name.startswith("."), "the remains of a killed build do not look like a stage"
    folder = store.stage("demo", {}, writes("whole"), "scanbook.errors")
    assert [path for path in (own_store / "demo").iterdir() if path.is_dir()] == [folder]


def test_two_processes_at_once_build_a_stage_once(own_store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    program = (
        "import sys, time; from pathlib import Path; from scanbook import store\n"
        "def build(folder):\n"
        f"    open({str(log)!r}, 'a').write('built\\n'); time.sleep(0.4); (folder / 'out.txt').write_text('x' * 1000)\n"
        "print(len((store.stage('demo', {}, build, 'scanbook.errors') / 'out.txt').read_text()))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["1000", "1000"]
    assert log.read_text() == "built\n"


LOCKLESS = """
import fcntl, os, sys, time
from pathlib import Path

flock = fcntl.flock

def refuse(file, operation):
    if os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}").startswith(sys.argv[1]):
        raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])))
    flock(file, operation)

fcntl.flock = refuse
from scanbook import store
"""
"""Starts a program with a folder without locks and the error that it answers with."""
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the stand-in for FUSE needs /proc")


@needs_proc
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK])
def test_a_folder_without_locks_has_them_on_the_machine_and_none_outlives_a_process(
    number: int, own_store: Path, tmp_path: Path
) -> None:
    """As on FUSE file systems: two at once build a stage once, and one that was killed blocks nobody."""
    log = tmp_path / "log.txt"
    build = (
        "def build(folder):\n"
        f"    open({str(log)!r}, 'a').write('built\\n'); time.sleep(0.4); (folder / 'out.txt').write_text('x')\n"
        "store.stage('demo', {}, build, 'scanbook.errors')"
    )
    die = "store.stage('demo', {}, lambda folder: os.kill(os.getpid(), 9), 'scanbook.errors')"

    def start(program: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", LOCKLESS + program, str(own_store), str(number)])

    assert start(die).wait(60) == -9
    running = [start(build) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert log.read_text() == "built\n" and not list(own_store.rglob("*.lock"))
    assert start("assert len(store.prune(0)) == 1").wait(60) == 0


def test_a_file_system_without_permissions_holds_a_store(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "chmod", refuse)
    assert (store.stage("demo", {}, writes("x"), "scanbook.errors") / "out.txt").read_text() == "x"


def test_atomic_write_never_shows_halves(tmp_path: Path) -> None:
    path, size, stop = tmp_path / "deep" / "file.txt", 400_000, threading.Event()
    store.atomic_write(path, "a" * size)
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            text = path.read_text()
            seen.add(text[0] if len(text) == size and len(set(text)) == 1 else "torn")

    reader = threading.Thread(target=read)
    reader.start()
    for letter in "bcdefghij" * 4:
        store.atomic_write(path, letter * size)
    stop.set()
    reader.join()
    assert seen and "torn" not in seen
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    store.atomic_write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        store.atomic_write(path, b"new")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_tree_fingerprint_is_of_content_names_and_nothing_else(own_store: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (data / "a" / "1.jpg").write_bytes(b"one")
    (data / "2.jpg").write_bytes(b"two")
    before = store.tree_fingerprint(data)
    os.utime(data / "2.jpg", ns=(1, 10**18))
    assert store.tree_fingerprint(data) == before, "a touched file is the same"
    (data / ".hidden").write_bytes(b"x")
    (data / ".git").mkdir()
    (data / ".git" / "index").write_bytes(b"x")
    (data / "Thumbs.db").write_bytes(b"x")
    assert store.tree_fingerprint(data) == before, "what is hidden or the system's does not count"
    (data / "2.jpg").write_bytes(b"TWO")
    changed = store.tree_fingerprint(data)
    assert changed != before
    (data / "2.jpg").rename(data / "3.jpg")
    assert store.tree_fingerprint(data) not in (before, changed)
    (data / "3.jpg").rename(data / "2.jpg")
    assert store.tree_fingerprint(data) == changed
    assert store.tree_fingerprint(data / "2.jpg") != store.tree_fingerprint(data / "a" / "1.jpg")


def test_a_tree_fingerprint_passes_over_links_to_nothing(own_store: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.jpg").write_bytes(b"one")
    before = store.tree_fingerprint(tmp_path / "data")
    (tmp_path / "data" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert store.tree_fingerprint(tmp_path / "data") == before
    (tmp_path / "gone.jpg").write_bytes(b"back")
    assert store.tree_fingerprint(tmp_path / "data") != before


def test_a_file_rewritten_at_once_is_noticed_though_size_and_clock_agree(own_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("aaa")
    stamp = path.stat().st_mtime_ns
    before = store.tree_fingerprint(path)
    path.write_text("bbb")
    os.utime(path, ns=(stamp, stamp))
    assert store.tree_fingerprint(path) != before


def test_settled_files_are_read_once(own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = time.time_ns() - 3600 * 10**9
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(old, old))
    read: list[Path] = []
    digest = fingerprints.file_digest
    monkeypatch.setattr(fingerprints, "file_digest", lambda path: read.append(path) or digest(path))
    first = [store.tree_fingerprint(tmp_path / "1.jpg"), store.tree_fingerprint(tmp_path / "2.jpg")]
    assert len(read) == 2
    assert [store.tree_fingerprint(tmp_path / "1.jpg"), store.tree_fingerprint(tmp_path / "2.jpg")] == first
    assert len(read) == 2


def test_prune_removes_the_stages_used_longest_ago_and_no_stage_in_use(own_store: Path) -> None:
    folders = [store.stage("demo", {"n": n}, writes("x" * 10_000), "scanbook.errors") for n in range(4)]
    forget()
    for age, folder in zip((300, 400, 200, 100), folders, strict=True):
        os.utime(folder, (time.time() - age,) * 2)
    size = sum(path.stat().st_size for path in folders[0].iterdir())
    assert store.prune(10 * size) == []
    assert store.prune(3 * size + size // 2) == [folders[1]]
    store.stage("demo", {"n": 0}, writes("unused"), "scanbook.errors")  # a hit counts as use
    forget()
    assert store.prune(2 * size + size // 2) == [folders[2]]
    assert [folder.is_dir() for folder in folders] == [True, False, False, True]
    store.stage("demo", {"n": 3}, writes("unused"), "scanbook.errors")
    assert store.prune(0) == [folders[0]], "what is in use counts, and stays"
    assert folders[3].is_dir() and not Path(f"{folders[0]}.lock").exists()


def test_prune_never_takes_a_stage_that_a_running_process_asked_for(own_store: Path) -> None:
    program = (
        "from scanbook import store\n"
        "print(store.stage('demo', {}, lambda folder: (folder / 'out.txt').write_text('x'), 'scanbook.errors'))\n"
        "input()"
    )
    command = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        folder = Path(other.stdout.readline().strip())
        assert store.prune(0) == [] and (folder / "out.txt").is_file()
        other.kill()
    assert store.prune(0) == [folder] and not folder.exists()
    store.stage("demo", {}, writes("y"), "scanbook.errors")
    assert store.prune(0) == [], "nor one of its own"


def test_a_stage_asked_for_while_it_is_pruned_is_built_again(own_store: Path) -> None:
    folder = store.stage("demo", {}, writes("x"), "scanbook.errors")
    forget()
    folders: list[Path] = []
    request = threading.Thread(target=lambda: folders.append(store.stage("demo", {}, writes("y"), "scanbook.errors")))
    with stages.unused(folder) as free:
        assert free
        request.start()
        request.join(0.2)
        assert folders == [], "it waits for the pruning"
        os.replace(folder, folder.with_name(".pruned"))
    request.join(30)
    assert folders == [folder] and (folder / "out.txt").read_text() == "y"


@pytest.mark.parametrize(("named", "limit"), [("2.5", 5 * 2**29), ("0", 0), ("inf", sys.maxsize)])
def test_the_stores_limit_is_any_number_of_gib(named: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE_GIB", named)
    assert runtime.store_limit() == limit


@pytest.mark.parametrize("named", ["", "-1", "nan", "20 GiB"])
def test_a_limit_that_is_not_a_number_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE_GIB", named)
    with pytest.raises(errors.ScanbookError, match=f"SCANBOOK_STORE_GIB is '{named}', expected a number of GiB"):
        runtime.store_limit()


def test_prune_never_takes_a_stage_that_is_being_built(own_store: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "out.txt").write_text("x" * 1000)
        assert store.prune(0) == []

    assert (store.stage("demo", {}, build, "scanbook.errors") / "out.txt").is_file()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_store_that_cannot_be_written_is_one_line(
    number: int, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder / "out.txt"))

    with pytest.raises(StoreError) as caught:
        store.stage("demo", {}, refuse, "scanbook.errors")
    message = str(caught.value)
    assert "\n" not in message and str(own_store) in message
    assert os.strerror(number) in message and "SCANBOOK_STORE" in message


def test_a_store_whose_files_cannot_be_mapped_into_memory_is_one_line(own_store: Path) -> None:
    def refuse(folder: Path) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))  # mmap names no file

    with pytest.raises(
        StoreError, match=rf"cannot write the store at {own_store}.*{os.strerror(errno.ENODEV)}.*set SCANBOOK_STORE"
    ):
        store.stage("demo", {}, refuse, "scanbook.errors")


def test_a_store_below_a_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "file" / "store"))
    with pytest.raises(StoreError, match=r"cannot write the store at .*file.*SCANBOOK_STORE"):
        store.stage("demo", {}, writes("x"), "scanbook.errors")


def test_a_source_that_cannot_be_read_is_not_blamed_on_the_store(own_store: Path, tmp_path: Path) -> None:
    def build(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "scan.jpg"))

    with pytest.raises(PermissionError, match=r"scan\.jpg"):
        store.stage("demo", {}, build, "scanbook.errors")


def test_a_read_only_store_serves_what_it_holds(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.stage("demo", {}, writes("x"), "scanbook.errors")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert store.stage("demo", {}, writes("x"), "scanbook.errors") == folder


def test_every_error_is_a_scanbook_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 5 and all(issubclass(kind, errors.ScanbookError) for kind in kinds)


def test_a_checkpoint_outlives_a_failed_build_and_goes_with_a_whole_one(own_store: Path) -> None:
    def fail(folder: Path) -> None:
        store.atomic_write(store.checkpoint(folder) / "epoch", "1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.stage("demo", {}, fail, "scanbook.errors")
    (remains,) = own_store.glob("demo/.*-checkpoint")
    assert [path.name for path in remains.iterdir()] == ["epoch"]

    def go_on(folder: Path) -> None:
        (folder / "out.txt").write_text((store.checkpoint(folder) / "epoch").read_text() + " and on")

    assert (store.stage("demo", {}, go_on, "scanbook.errors") / "out.txt").read_text() == "1 and on"
    assert not remains.exists()


def test_prune_removes_checkpoints_that_no_run_resumed(own_store: Path) -> None:
    def fail(folder: Path) -> None:
        store.atomic_write(store.checkpoint(folder) / "epoch", "x" * 1000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.stage("demo", {}, fail, "scanbook.errors")
    (remains,) = own_store.glob("demo/.*-checkpoint")
    assert store.prune(0) == [remains] and not remains.exists()


def test_prune_removes_the_remains_of_a_killed_build(own_store: Path) -> None:
    program = (
        "import os; from scanbook import store\n"
        "store.stage('demo', {}, lambda work: (work / 'x').write_text('x') and os.kill(os.getpid(), 9), "
        "'scanbook.errors')"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (remains,) = own_store.glob("demo/.*")
    (entry,) = store.entries()
    assert (entry.folder, entry.kind, entry.whole) == (remains, "demo", False)
    assert store.prune(0) == [remains] and not remains.exists()


DAMAGE = {
    "a truncated array": lambda folder: os.truncate(folder / "array.npy", 40),
    "an overwritten array": lambda folder: np.save(folder / "array.npy", np.ones(100)),
    "lost weights": lambda folder: (folder / "deep" / "model.weights").unlink(),
    "overwritten weights": lambda folder: (folder / "deep" / "model.weights").write_bytes(b"other bytes"),
    "a truncated record": lambda folder: os.truncate(folder / store.INPUTS, 30),
    "a record that says something else": lambda folder: (folder / store.INPUTS).write_text('{"files": []}'),
}


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_stage_is_detected_reported_and_built_again(harm: str, own_store: Path) -> None:
    def build(folder: Path) -> None:
        np.save(folder / "array.npy", np.zeros(100))
        (folder / "deep").mkdir()
        (folder / "deep" / "model.weights").write_bytes(b"some weights")

    def read(folder: Path) -> tuple[float, bytes]:
        return np.load(folder / "array.npy").sum(), (folder / "deep" / "model.weights").read_bytes()

    folder = store.stage("demo", {}, build, "scanbook.errors")
    forget()
    DAMAGE[harm](folder)
    with pytest.warns(UserWarning, match=rf"the store's {own_store}.* so it is built again"):
        assert store.stage("demo", {}, build, "scanbook.errors") == folder
    assert read(folder) == (0, b"some weights")
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == [folder.name]


def test_a_copied_store_is_read_once_and_not_built_again(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.stage("demo", {}, writes("x"), "scanbook.errors")
    os.utime(folder / "out.txt", ns=(1, 1))  # as a copy has another time
    read: list[Path] = []
    digest = stages.file_digest
    monkeypatch.setattr(stages, "file_digest", lambda path: read.append(path) or digest(path))
    for _ in range(2):
        forget()
        assert store.stage("demo", {}, writes("y"), "scanbook.errors") == folder
    assert read == [folder / "out.txt"] and (folder / "out.txt").read_text() == "x"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"b": [1]}}', '{"a": {"b": 2}}'])
def test_a_damaged_index_of_digests_costs_only_time(text: str, own_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a")
    os.utime(path, (0, 0))
    first = store.tree_fingerprint(path)
    (own_store / "digests.json").write_text(text)
    assert store.tree_fingerprint(path) == first


def test_visited_stages_are_listed_once_with_their_own_seconds(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    clock = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: clock[0])

    def inner(folder: Path) -> None:
        clock[0] += 3
        (folder / "out.bin").write_bytes(bytes(2**20))

    def outer(folder: Path) -> None:
        clock[0] += 1
        for _ in range(2):  # built, then found
            store.stage("inner", {}, inner, "scanbook.errors")
        store.stage("beside", {}, inner, "scanbook.errors")
        clock[0] += 4

    for _ in range(2):
        store.stage("outer", {}, outer, "scanbook.errors")
    visits = store.visited()
    assert [(visit.kind, visit.built) for visit in visits] == [("inner", True), ("beside", True), ("outer", True)]
    assert [(visit.seconds, visit.own_seconds) for visit in visits] == [(3, 3), (3, 3), (11, 5)]
    assert sum(visit.own_seconds for visit in visits) == clock[0]
    assert visits[0].size == pytest.approx(1, abs=0.01) and visits[2].size < 0.01

    forget()  # as another process, which finds it
    store.stage("outer", {}, outer, "scanbook.errors")
    (again,) = store.visited()
    assert (again.built, again.seconds, again.own_seconds, again.folder) == (False, 11, 5, visits[2].folder)
    shutil.rmtree(again.folder)
    assert store.visited() == []


def test_a_failed_stage_is_not_listed_and_its_seconds_count_for_its_caller(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    clock = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: clock[0])

    def fail(_: Path) -> None:
        clock[0] += 2
        raise RuntimeError("broke")

    def outer(_: Path) -> None:
        with pytest.raises(RuntimeError):
            store.stage("inner", {}, fail, "scanbook.errors")

    store.stage("outer", {}, outer, "scanbook.errors")
    store.stage("after", {}, lambda _: None, "scanbook.errors")
    assert [(visit.kind, visit.own_seconds) for visit in store.visited()] == [("outer", 2), ("after", 0)]
