"""Checks docker-compose.yaml without Docker.

The file is compared with the Compose specification's JSON schema. Other tests check pinned images, health checks,
loopback ports, and that no secret has a default.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from include.demo.distributed.stack import CELERY
from include.demo.environment import options

CHECKOUT = Path(__file__).parents[2]
ONE_SHOT = {"airflow-init", "postgres-init", "demo-database"}
OF_PROFILES = {"AIRFLOW_CONN_RESTORE_DB", "AIRFLOW_CONN_PITR_DB"}
"""Variables that only a profile needs: without it they may be empty."""
LONG_RUNNING = {
    "api-server", "scheduler", "dag-processor", "triggerer", "worker", "postgres", "redis", "store", "mail",
    "restore-worker",
}  # fmt: skip

# $$ is Compose's way to write a $ that is not its own.
VARIABLE = re.compile(r"(?<!\$)\$(?:\{(\w+)(?:(:?[-?+])([^}]*))?\}|(\w+))")
SECRET = re.compile(r"PASSWORD|SECRET|FERNET|ACCESS_KEY|REDISCLI_AUTH|PRIVATE|TOKEN|CREDENTIAL")
# login:password before the host, as in a database's or a broker's URL
LOGIN = re.compile(r"://([^/@\s]*)@")
# The variables of .env that are secrets, or that only their owner can know.
OWNERS = re.compile(rf"{SECRET.pattern}|^AIRFLOW_CONN_|^CLINIC_BACKUPS_RECIPIENTS$|^S3_\w+_KEY$")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load(CHECKOUT.joinpath("docker-compose.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    """The variables of .env.example."""
    lines = CHECKOUT.joinpath(".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def load(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def validate(document: dict[str, Any]) -> None:
    """:raises jsonschema.ValidationError: the document is no Compose file by the specification's own schema."""
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.Draft202012Validator(json.loads(schema.read_text("utf-8"))).validate(document)


def literal_secrets(services: dict[str, Any]) -> list[str]:
    """Where a value that is, or contains, a secret is anything but ``${NAME:?message}``."""
    found = []
    for service, definition in services.items():
        for name, value in definition.get("environment", {}).items():
            required = VARIABLE.sub(lambda match: "" if match[2] == ":?" else match[0], str(value))
            logins = LOGIN.findall(required)
            # Of a URL's login, the name may stand in the file: airflow:${AIRFLOW_DB_PASSWORD:?...}@
            if (SECRET.search(name) and required) or any(
                ":" not in login or login.split(":", 1)[1] for login in logins
            ):
                found.append(f"{service}: {name}")
    return found


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from texts(item)
    elif isinstance(node, str):
        yield node


def test_it_is_a_compose_file(compose: dict[str, Any]) -> None:
    validate(compose)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("services", "worker", "imagee"), "x"),
        (("services", "worker", "healthcheck", "every"), "30s"),
        (("services", "worker", "depends_on", "redis", "condition"), "service_is_up"),
        (("services", "worker", "ports"), "8080:8080"),
        (("service",), {}),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_the_schema_refuses_mistakes(compose: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    broken = node = deepcopy(compose)
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


def test_services_are_healthy_pinned_and_confined(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == LONG_RUNNING | ONE_SHOT
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?\Z", service["image"]), f"{name}: unpinned image"
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["restart"] == ("unless-stopped" if name in LONG_RUNNING else "on-failure:5"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), f"{name}: open to the network"
        if name in LONG_RUNNING:
            assert set(service["healthcheck"]) >= {"test", "interval", "timeout", "retries", "start_period"}, name
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_healthy" if other in LONG_RUNNING else "service_completed_successfully"
            assert how["condition"] == wanted, f"{name} does not wait for {other}"


def test_the_key_is_with_the_worker_that_restores_and_nowhere_else(compose: dict[str, Any]) -> None:
    services = compose["services"]
    secret = {name for name, service in services.items() if "secrets" in service}
    keys = {
        name for name, service in services.items() if "CLINIC_BACKUPS_IDENTITY_FILE" in service.get("environment", {})
    }
    writes = {name for name, service in services.items() if "AIRFLOW_CONN_RESTORE_DB" in service.get("environment", {})}
    assert secret == keys == writes == {"restore-worker"}
    restores = services["restore-worker"]
    assert restores["profiles"] == ["restore"]
    queue = services["scheduler"]["environment"]["CLINIC_BACKUPS_RESTORE_QUEUE"]
    assert restores["command"].endswith(f"--queues {queue}")
    assert "--queues" not in services["worker"]["command"], "Airflow's default queue"
    assert services["dag-processor"]["environment"]["CLINIC_BACKUPS_RESTORE_QUEUE"] == queue


def test_celery_goes_on_as_in_the_demo_that_tries_it(compose: dict[str, Any]) -> None:
    for service in ("scheduler", "worker", "restore-worker"):
        environment = compose["services"][service]["environment"]
        assert options(CELERY).items() <= environment.items(), service
    page = CHECKOUT.joinpath("docs", "operations.md").read_text("utf-8")
    for section, values in CELERY.items():
        for name in values:
            assert f"`[{section}] {name}`" in page, name


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    assert literal_secrets(compose["services"]) == []
    # The check above can fail:
    url = "postgresql://airflow:{}@postgres/airflow"
    for name, value in {
        "POSTGRES_PASSWORD": "postgres",
        "AWS_SECRET_ACCESS_KEY": "${S3_SECRET_KEY:-secret}",
        "AIRFLOW__CORE__FERNET_KEY": "${AIRFLOW_FERNET_KEY}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.format("airflow"),
        "AIRFLOW__CELERY__RESULT_BACKEND": url.format("${AIRFLOW_DB_PASSWORD:-airflow}"),
    }.items():
        assert literal_secrets({"x": {"environment": {name: value}}}) == [f"x: {name}"]


def test_every_variable_is_in_the_example(compose: dict[str, Any], example: dict[str, str]) -> None:
    used: dict[str, set[tuple[str, str]]] = {}
    for text in texts(compose):
        for match in VARIABLE.finditer(text):
            used.setdefault(match[1] or match[4], set()).add((match[2] or "", match[3] or ""))
    assert set(used) == set(example)
    for name, ways in used.items():
        if name in OF_PROFILES:
            assert ways == {(":-", "")} and example[name] == "", f"{name} has a value"
        elif OWNERS.search(name):
            assert {how for how, _ in ways} == {":?"} and all(message for _, message in ways), f"{name} is not required"
            assert example[name] == "", f"{name} has a value in .env.example"
        else:
            assert ways == {(":-", example[name])}, f"{name}: .env.example shows another default"


def test_the_image_is_of_the_locked_versions(compose: dict[str, Any]) -> None:
    base = re.search(r"^FROM apache/airflow:(\S+)-python3\.\d+$", CHECKOUT.joinpath("Dockerfile").read_text(), re.M)
    locks = [CHECKOUT / "requirements.txt", CHECKOUT / "include" / "docker" / "requirements.txt"]
    pins, further = (dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.M)) for lock in locks)
    assert base and base[1] == pins["apache-airflow"]
    assert {name: pins[name] for name in pins.keys() & further} == {
        name: further[name] for name in pins.keys() & further
    }
    assert further.keys() >= {"apache-airflow-providers-celery", "apache-airflow-providers-fab"}
    project = tomllib.loads(CHECKOUT.joinpath("pyproject.toml").read_text("utf-8"))["project"]
    built = {service["image"] for service in compose["services"].values() if "build" in service}
    assert built == {f"{project['name']}:{project['version']}"}


def test_paths_exist_in_the_checkout_and_reach_the_builder(compose: dict[str, Any]) -> None:
    ignore = CHECKOUT.joinpath(".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignore if line.startswith("!")}
    dockerfile = CHECKOUT.joinpath("Dockerfile").read_text("utf-8")
    copied = [
        word for line in re.findall(r"^COPY (.+)$", dockerfile, re.M) for word in line.split()[:-1] if word[0] != "-"
    ]
    assert "*" in ignore and copied
    for path in copied:
        assert CHECKOUT.joinpath(path).exists() and Path(path).parts[0] in sent, path
    mounts = [volume.split(":") for service in compose["services"].values() for volume in service.get("volumes", [])]
    named = {source for source, *_ in mounts if not source.startswith(".")}
    assert named == set(compose["volumes"])
    for source, target, *mode in (mount for mount in mounts if mount[0] not in named):
        assert CHECKOUT.joinpath(source).exists() and mode == ["ro"], f"{source} on {target}"
    for text in texts(compose):
        for path in re.findall(r"(?:/opt/airflow)?/(include/docker/[\w.]+)", text):
            assert CHECKOUT.joinpath(path).exists(), path
