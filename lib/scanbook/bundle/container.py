"""What runs a bundle elsewhere: the packages it needs, and a container's image of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version

from scanbook.bundle.description import FILES, REQUIREMENTS, SERVED, Bundle

DOCKERFILE, IGNORED = "Dockerfile", ".dockerignore"

PACKAGES = (
    *("flask", "flask-babel", "flask-limiter", "gunicorn", "numpy", "opencv-python-headless", "openvino"),
    *("prometheus-client", "werkzeug"),
)
"""What the serving code imports."""

_DOCKERFILE = """\
# The service of one exported model, for linux/amd64 and linux/arm64 alike:
#   docker build -t {image} .
#   docker run --rm -p {port}:{port} --read-only --tmpfs /tmp {image}
FROM python:{python}-slim

LABEL org.opencontainers.image.title={title} \\
      org.opencontainers.image.description={description} \\
      org.opencontainers.image.version={version} \\
      org.opencontainers.image.licenses=Apache-2.0

ENV PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    SCANBOOK_HOST=0.0.0.0 \\
    SCANBOOK_PORT={port}

WORKDIR /opt/scanbook

# wheels alone: nothing is compiled, so no compiler is needed
COPY {requirements} ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --only-binary :all: -r {requirements}

COPY . .
# the service runs as a user who may write nothing here; compiled now, it starts faster
RUN python -m compileall -q scanbook

USER {user}:{user}
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", {check}]
ENTRYPOINT ["python", "-m", "scanbook.serving"]
CMD ["serve"]
"""

PORT = 8080
_USER = 10001
# without a proxy that the environment names: it would be asked for the container's own address
_CHECK = (
    "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open("
    f"'http://127.0.0.1:' + os.environ.get('SCANBOOK_PORT', '{PORT}') + '/healthz', timeout=4)"
)


def requirements(packages: Sequence[str] = ()) -> str:
    """The packages of the service in the versions that are installed here, for pip.

    Args:
        packages: What the service needs beside `PACKAGES`.
    """
    return "".join(f"{package}=={version(package)}\n" for package in sorted({*PACKAGES, *packages}))


def dockerfile(bundle: Bundle) -> str:
    """How a container's image of the bundle is built: slim, without a compiler, run as a user without rights."""
    return _DOCKERFILE.format(
        image=f"scanbook-{_lower(bundle.name)}",
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        title=_quoted(f"scanbook: {bundle.name}"),
        description=_quoted(bundle.about.get("title", bundle.name)),
        version=_quoted(version("scanbook")),
        port=PORT,
        requirements=REQUIREMENTS,
        user=_USER,
        check=json.dumps(_CHECK),
    )


def dockerignore() -> str:
    """What stays out of the image: the formats that the service does not run."""
    unused = [name for style, name in FILES.items() if style not in SERVED.values()]
    return "".join(f"{each}\n" for each in (*unused, "**/__pycache__"))


def _quoted(text: str) -> str:
    """A label's value on one line; `$` would name a variable."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False).replace("$", "\\$")


def _lower(name: str) -> str:
    """A name as those of images have to be."""
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in name.lower()).strip("-") or "model"
