"""Tests the API against its own description: no request causes a server error, and every answer is as described."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from clinic_backups.web.runs import DAG_IDS
from tests.airflow.conftest import Airflow

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def token(airflow: Airflow) -> str:
    with closing(airflow.web("admin")) as client:
        return str(client.headers["Authorization"])


@pytest.fixture(scope="module")
def description(airflow: Airflow, token: str) -> Iterator[schemathesis.BaseSchema]:
    airflow.run({"clinic_id": 1})
    url = f"{airflow.stack.url}/backups/openapi.json"
    # Paused: nothing that is sent starts a run.
    with airflow.paused(*DAG_IDS):
        yield schemathesis.openapi.from_url(url, headers={"Authorization": token}, wait_for_schema=10)


def test_the_api_is_as_described_whatever_is_sent(description: schemathesis.BaseSchema, token: str) -> None:
    operations = [found.ok() for found in description.get_all_operations()]
    assert len(operations) >= 9
    for operation in operations:

        @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answers_as_described(case: schemathesis.Case) -> None:
            answer = case.call(headers={"Authorization": token})
            case.validate_response(answer, checks=CHECKS)

        answers_as_described()
