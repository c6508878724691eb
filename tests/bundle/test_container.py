"""`serve` as a container runs it, where no container engine is available.

What the Dockerfile says is done by hand: an empty environment with the bundle's own requirements, wheels alone; a copy
of the bundle that nobody may write to; the Dockerfile's variables and command, a user without rights, no home folder.
What this cannot show: the base image, and arm64.
"""

import base64
import fnmatch
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.bundles import write
from helpers.services import free_port
from helpers.uploads import jpeg
from scanbook.data import images

NOBODY = 65534
"""A user and group without rights, where the tests may change to them."""
NO_NETWORK = (
    "error sending request",
    "failed to fetch",
    "timed out",
    "name resolution",
    "connection",
    "no route to host",
)
LIMIT = 600 * 2**20
"""Bytes that the packages may take: TensorFlow alone takes more than twice as much."""


@pytest.fixture(scope="module")
def place():
    """A folder that any user may enter; pytest's own are the tester's alone."""
    folder = Path(tempfile.mkdtemp(prefix="scanbook-container-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder / "image", folder / "code", folder / "model"):
        for closed in (path, *path.rglob("*")):
            if closed.is_dir():
                closed.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def exported(place):
    (place / "made").mkdir()
    return write(place / "made" / "bundle").folder


def instructions(folder: Path) -> dict[str, list[str]]:
    """The Dockerfile's instructions, in order for each word."""
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    steps: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            steps.setdefault(word, []).append(rest.strip())
    return steps


def test_the_dockerfile_copies_what_a_bundle_has(exported):
    steps = instructions(exported)
    ignored = (exported / ".dockerignore").read_text().split()
    for copy in steps["COPY"]:
        *sources, target = [word for word in shlex.split(copy) if not word.startswith("--")]
        assert sources and target
        for source in sources:
            assert (exported / source).exists(), copy
            assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored), copy
    # nothing that the service needs stays out
    needed = ["bundle.json", "checksums.json", "requirements.txt", "model.xml", "model.bin", "scanbook"]
    assert all(
        (exported / name).exists() and not any(fnmatch.fnmatch(name, pattern) for pattern in ignored) for name in needed
    )
    assert [user.split(":")[0] for user in steps["USER"]] not in (["0"], ["root"]) and steps["EXPOSE"] == ["8080"]
    assert json.loads(steps["ENTRYPOINT"][0]) + json.loads(steps["CMD"][0]) == [
        "python",
        "-m",
        "scanbook.serving",
        "serve",
    ]


# --- an environment as the image has it


def interpreter() -> tuple[str, dict]:
    """A Python of this version, and whom it can run as: nobody, where that is possible."""
    own = os.path.realpath(sys.executable)
    if os.getuid():
        return own, {}
    for python in (own, "/usr/local/bin/python3", "/usr/bin/python3"):
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        say = [python, "-c", "import sys; print(*sys.version_info[:2])"]
        try:
            output = subprocess.run(say, capture_output=True, text=True, check=True, env={}, cwd="/", **user).stdout
        except (OSError, subprocess.CalledProcessError):
            continue  # it lies where nobody else may look
        if output.split() == [str(part) for part in sys.version_info[:2]]:
            return python, user
    return own, {}


@pytest.fixture(scope="module")
def installed(place, exported):
    """The interpreter of an environment with the bundle's requirements alone, and whom to run it as."""
    pytest.importorskip("uv", reason="uv makes the environment, and is not here")
    python, user = interpreter()
    folder = place / "environment"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", python, folder], check=True, capture_output=True)
    requirements = ["--only-binary", ":all:", "-r", exported / "requirements.txt"]
    pip = [sys.executable, "-m", "pip", "--python", folder, "--quiet", "--retries", "0", "--timeout", "10"]
    messages = []
    # pip knows settings that uv does not read
    for command in ([*uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python"], [*pip, "install"]):
        environment = os.environ | {"UV_HTTP_TIMEOUT": "20"}
        done = subprocess.run([*command, *requirements], env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return folder / "bin" / "python", user
        messages.append(done.stderr.strip())
    # pip does not say why it found nothing
    if any(sign in messages[0].lower() for sign in NO_NETWORK):
        pytest.skip(f"no package index can be reached: {messages[0].splitlines()[-1]}")
    pytest.fail("\n".join(messages))


def copy(source: Path, target: Path) -> Path:
    """A copy of a bundle that nobody may write to, compiled as the image's."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", target / "scanbook"], check=True)
    for path in (*target.rglob("*"), target):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return target


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@contextmanager
def served(installed, folder: Path, arguments: list[str], environment: dict[str, str], port: int):
    """Runs the command of the Dockerfile; stops it as a container is stopped."""
    python, user = installed
    steps = instructions(folder)
    command = [str(python), *json.loads(steps["ENTRYPOINT"][0])[1:], *(arguments or json.loads(steps["CMD"][0]))]
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, **user)
        try:
            while ask(port, "/readyz")[0] != 200:
                log.seek(0)
                assert process.poll() is None and time.monotonic() < started + 30, log.read().decode()
                time.sleep(0.05)
            if user and sys.platform == "linux":
                status = Path(f"/proc/{process.pid}/status").read_text()
                assert f"Uid:\t{NOBODY}\t{NOBODY}" in status and "CapEff:\t0000000000000000" in status
            yield time.monotonic() - started
            process.send_signal(signal.SIGTERM)
            log.seek(0)
            assert process.wait(timeout=10) == 0, log.read().decode()
        finally:
            process.kill()
            process.wait()


def ask(port: int, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST" if body else "GET", path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except OSError:
        return 0, {}
    finally:
        connection.close()


@pytest.mark.slow
def test_the_environment_holds_what_the_service_needs_and_no_more(installed, record_property):
    python, user = installed
    absent = ("tensorflow", "keras", "pandas", "matplotlib", "sklearn", "pip")
    code = f"from importlib.util import find_spec; print([name for name in {absent} if find_spec(name)])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env={}, cwd="/", **user)
    assert done.stdout.strip() == "[]"
    size = sum(
        path.lstat().st_size for path in python.parents[2].rglob("*") if path.is_file() and not path.is_symlink()
    )
    record_property("installed_bytes", size)
    print(f"installed: {size / 2**20:.0f} MiB")
    assert 50 * 2**20 < size < LIMIT


@pytest.mark.slow
def test_serve_with_nothing_in_the_environment(installed, exported, place, record_property):
    folder = copy(exported, place / "image")
    before, port = state(folder), free_port()
    red = jpeg((255, 0, 0))
    with served(installed, folder, ["serve", "--port", str(port)], {}, port) as seconds:
        record_property("seconds_to_ready", seconds)
        print(f"ready after {seconds:.1f} s")
        assert ask(port, "/ping")[0] == 200
        status, answer = ask(port, "/invocations", red, "image/jpeg")
        assert status == 200 and [prediction["class"] for prediction in answer["predictions"]] == ["red"]
        two = [{"b64": base64.b64encode(file).decode()} for file in (jpeg((0, 0, 255)), red)]
        status, answer = ask(port, "/invocations", json.dumps({"instances": two}).encode(), "application/json")
        assert status == 200 and [prediction["class"] for prediction in answer["predictions"]] == ["blue", "red"]
        status, answer = ask(port, "/predict", images.encode_png(images.read(red)), "image/png")
        assert status == 200 and answer["predictions"][0]["class"] == "red"
        assert ask(port, "/predict", b"no image", "image/png")[0] == 400
    assert state(folder) == before


@pytest.mark.slow
def test_serve_runs_the_model_that_is_mounted(installed, exported, place):
    """SageMaker's contract, in a folder of ours: the image's code, its variables and `serve`, another bundle."""
    folder = copy(exported, place / "code")
    (place / "other").mkdir()
    mounted = copy(write(place / "other" / "bundle", name="mounted").folder, place / "model")
    before, port = (state(folder), state(mounted)), free_port()
    scratch = place / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    [variables] = instructions(folder)["ENV"]
    environment = dict(variable.split("=", 1) for variable in shlex.split(variables))
    environment |= {"SCANBOOK_PORT": str(port), "SCANBOOK_BUNDLE": str(mounted), "TMPDIR": str(scratch)}
    with served(installed, folder, [], environment, port):
        assert ask(port, "/readyz")[1]["model"] == "mounted"
        status, answer = ask(port, "/invocations", jpeg((0, 255, 0)), "image/jpeg")
        assert status == 200 and answer["model"] == "mounted" and answer["predictions"][0]["class"] == "green"
    assert (state(folder), state(mounted)) == before
    assert list(scratch.iterdir()) == []
