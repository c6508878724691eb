"""schemathesis checks that the service responds to any request as `/openapi.json` describes."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from helpers import bad_files
from helpers.uploads import problem

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.allow_header_conformance,
    checks.unsupported_method,
]
"""All checks but those that expect status 200 for valid input: random bytes are valid, but not an image."""
PATHS = ("/predict", "/invocations", "/healthz", "/readyz", "/ping", "/metrics")
"""All routes but `/openapi.json`, which schemathesis has read."""

files = st.sampled_from([bad_files.PLAIN, bad_files.JPEG, bad_files.WEBP, *map(bad_files.refused, ("text", "0 bytes"))])
images = files | st.binary(max_size=200) | st.builds(lambda file, rest: file[:60] + rest, files, st.binary(max_size=60))
for kind in ("image/jpeg", "image/png", "image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, images)


@pytest.fixture(scope="module")
def schema(app):
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


def check_route(schema, path: str, examples: int) -> set[int]:
    """Check responses of a route and return their statuses."""
    statuses = set()
    [operation] = [result.ok() for result in schema.get_all_operations() if result.ok().path == path]

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def ask(case):
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    return statuses


def test_all_routes_are_described(schema):
    assert set(schema.raw_schema["paths"]) == {*PATHS, "/openapi.json"}


@pytest.mark.parametrize("path", PATHS)
def test_a_route_answers_as_described(schema, path):
    assert min(check_route(schema, path, 4)) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_a_route_answers_as_described_whatever_is_sent(schema, path):
    statuses = check_route(schema, path, 75 if path in ("/predict", "/invocations") else 10)
    # the requests must include valid and invalid ones
    assert statuses >= ({200, 400} if path in ("/predict", "/invocations") else {200})


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.just("AAAA"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["instances", "b64", "x"]), inner, max_size=3)
    ),
    max_leaves=9,
)


@given(json_values)
@settings(max_examples=40, derandomize=True, database=None, deadline=None)
def test_any_json_is_refused_in_a_sentence(app, value):
    assert problem(app.test_client().post("/invocations", data=json.dumps(value), content_type="application/json"), 400)


@given(
    st.binary(max_size=60),
    st.sampled_from(["image/png", "multipart/form-data; boundary=b", "application/json", "text/plain", ""]),
    st.sampled_from(["/predict", "/invocations", "/", "/predict?heatmap=1"]),
    st.sampled_from([b"", b"--b\r\n", b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n']),
)
@settings(max_examples=60, derandomize=True, database=None, deadline=None)
def test_any_bytes_of_any_kind_are_refused_in_a_sentence(app, data, kind, path, start):
    answer = app.test_client().post(path, data=start + data, headers={"Content-Type": kind})
    assert problem(answer, answer.status_code)["status"] in (400, 413, 415)
