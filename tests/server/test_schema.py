"""Requests of every form that the description of the API allows, and of forms that it does not, by schemathesis."""

import json
import os
import shutil

import pytest

import embedstore as es
from tests.server.conftest import running

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed: `pip install embedstore[test]`"
)
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import checks  # noqa: E402
from schemathesis.specs.openapi import checks as openapi_checks  # noqa: E402

EXAMPLES = int(os.environ.get("EMBEDSTORE_SCHEMA_EXAMPLES", "4"))
SLOW = ("/probe", "/reports/{name}", "/comparison", "/queues/{kind}", "/suggestions", "/map")  # they fit or project
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def fuzzed(color_store, tmp_path_factory):
    """A server of a store of its own, which requests may change."""
    path = tmp_path_factory.mktemp("fuzzed") / "s"
    shutil.copytree(color_store, path)
    with running(es.open(path)) as found:
        yield found


def operations(*, slow: bool):
    from tools.openapi import render

    paths = json.loads(render())["paths"]
    for path, methods in paths.items():
        is_slow = any(path.endswith(name) or f"{name}?" in path for name in SLOW)
        for method in methods:
            if path != "/api/v1/events" and is_slow == slow:
                yield pytest.param(path, method, id=f"{method} {path}")


def check(fuzzed, path: str, method: str, examples: int) -> None:
    """Send requests to one route, and compare what it answers with the description."""
    token = {"authorization": f"Bearer {fuzzed.context.access.token}"}
    schema = schemathesis.openapi.from_url(f"{fuzzed.address}/api/v1/openapi.json", headers=token)

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy())
    def answers_as_described(case):
        case.call_and_validate(headers=token, checks=CHECKS, timeout=60)

    answers_as_described()


@pytest.mark.parametrize(("path", "method"), list(operations(slow=False)))
def test_every_answer_is_one_that_the_description_names(fuzzed, path, method):
    """Whatever is sent, the status, type and form of the answer are described, and none is a defect."""
    check(fuzzed, path, method, EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), [*operations(slow=False), *operations(slow=True)])
def test_every_answer_is_described_in_many_tries(fuzzed, path, method):
    """The long form."""
    check(fuzzed, path, method, 50)
