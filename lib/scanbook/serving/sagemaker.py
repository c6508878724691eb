"""SageMaker's contract, on the same server: `/ping` says whether it is well, `/invocations` predicts."""

from __future__ import annotations

from flask import Blueprint, Response

from scanbook.serving import uploads
from scanbook.serving.programs import answer, health

sagemaker = Blueprint("sagemaker", __name__)


@sagemaker.get("/ping")
def ping() -> Response:
    """Whether the container is well. A full queue is no illness: SageMaker replaces a container that has one."""
    return health()


@sagemaker.post("/invocations")
def invoke() -> Response:
    """Answers as `/predict` does, for an image as the body or for base64 in JSON."""
    return answer(uploads.of_invocation())
