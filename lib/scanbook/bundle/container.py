"""Files that run a bundle on another machine: its required packages and the description of a container image."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version

from scanbook.bundle.description import FILES, REQUIREMENTS, SERVED, Bundle

DOCKERFILE, IGNORED = "Dockerfile", ".dockerignore"

PACKAGES = (
    *("flask", "flask-babel", "flask-limiter", "gunicorn", "numpy", "opencv-python-headless", "openvino"),
    *("pillow", "prometheus-client", "simplejpeg", "werkzeug"),
)
"""Packages that the serving code imports."""

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

# only wheels, so that no compiler is needed
COPY {requirements} ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --only-binary :all: -r {requirements}

COPY . .
# the service runs as a user who may not write here; compiled code starts faster
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
# without a proxy that the environment names, which cannot reach the container's own address
_CHECK = (
    "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open("
    f"'http://127.0.0.1:' + os.environ.get('SCANBOOK_PORT', '{PORT}') + '/healthz', timeout=4)"
)


def requirements(packages: Sequence[str] = ()) -> str:
    """Return the text of `requirements.txt`: the service's packages in the versions that are installed here.

    Args:
        packages: Packages that the service needs beside `PACKAGES`.
    """
    return "".join(f"{package}=={version(package)}\n" for package in sorted({*PACKAGES, *packages}))


def dockerfile(bundle: Bundle) -> str:
    """Return the `Dockerfile` of a bundle: a slim image without a compiler, run as a user without rights."""
    image = re.sub("[^a-z0-9]", "-", bundle.name.lower()).strip("-") or "model"
    return _DOCKERFILE.format(
        image=f"scanbook-{image}",
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
    """Return the `.dockerignore` of a bundle: the formats that the service does not run stay out of the image."""
    unused = [name for style, name in FILES.items() if style not in SERVED.values()]
    return "".join(f"{name}\n" for name in (*unused, "**/__pycache__"))


def _quoted(text: str) -> str:
    """Return the value of a label on one line; a bare `$` would name a variable."""
    return json.dumps(" ".join(text.split()), ensure_ascii=False).replace("$", "\\$")
