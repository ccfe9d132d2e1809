"""Checks include/kubernetes without a cluster.

The chart of Apache Airflow is not in this repository. With ``TESTS_AIRFLOW_CHART``, its folder or archive, the values
are compared with its JSON schema; with the program helm, or the Python package helm-python-sdk, they are rendered too.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from clinic_backups.base.setting_fields import PREFIX, SettingFields

FOLDER = Path(__file__).parents[2] / "include" / "kubernetes"
VARIANTS = ("kubernetes-executor", "celery-and-kubernetes")
CHART = os.environ.get("TESTS_AIRFLOW_CHART", "")
OF_RESTORES = {"CLINIC_BACKUPS_IDENTITY_FILE", "AIRFLOW_CONN_RESTORE_DB"}
SECRET = re.compile(r"AGE-SECRET-KEY|PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@")

# What the chart, 1.22.0, takes below these names. A name that it does not know would be refused, or do nothing.
RESOURCES = {"requests": {"cpu", "memory"}, "limits": {"memory"}}
ACCOUNT = {"create", "name", "automountServiceAccountToken"}
PODS = {
    "labels": None, "serviceAccount": ACCOUNT, "terminationGracePeriodSeconds": None, "safeToEvict": None,
    "resources": RESOURCES, "env": None, "extraVolumes": None, "extraVolumeMounts": None, "extraInitContainers": None,
}  # fmt: skip
COMPONENT = {"resources": RESOURCES, "serviceAccount": ACCOUNT, "persistence": {"enabled"}}
KNOWN: dict[str, Any] = {
    "images": {"airflow": {"repository", "tag"}, "pod_template": {"repository", "tag"}},
    "airflowVersion": None, "defaultAirflowTag": None, "executor": None, "env": None, "extraEnvFrom": None,
    "data": {"metadataSecretName"}, "fernetKeySecretName": None, "apiSecretKeySecretName": None, "jwtSecretName": None,
    "extraConfigMaps": None, "config": None, "volumes": None, "volumeMounts": None, "enableServiceLinks": None,
    "securityContexts": {"pod": None, "containers": None}, "networkPolicies": {"enabled"}, "allowPodLaunching": None,
    "dagProcessor": COMPONENT, "triggerer": COMPONENT,
    "scheduler": COMPONENT | {"extraVolumes": None, "extraVolumeMounts": None},
    "apiServer": COMPONENT | {"networkPolicy": {"ingress": {"from"}}},
    "migrateDatabaseJob": COMPONENT, "createUserJob": {"enabled"}, "postgresql": {"enabled"}, "statsd": {"enabled"},
    "redis": COMPONENT | {"enabled": None, "uid": None, "securityContexts": {"pod": None}},
    "workers": {
        "celery": PODS | {"enableDefault": None, "sets": None, "persistence": {"enabled"}},
        "kubernetes": PODS,
    },
}  # fmt: skip


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return loaded


def merged(below: Any, above: Any) -> Any:
    """As Helm does it with several files: maps are merged, and lists are replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {name: merged(below[name], value) if name in below else value for name, value in above.items()}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def values(variant: str) -> dict[str, Any]:
    result: dict[str, Any] = merged(read("values"), read(variant))
    return result


def unknown(given: dict[str, Any], known: Any, path: str = "") -> Iterator[str]:
    for name, value in given.items():
        if name not in known:
            yield f"{path}{name}"
        elif isinstance(known, dict) and known[name] is not None:
            yield from unknown(value, known[name], f"{path}{name}.")


def texts(node: Any) -> Iterator[str]:
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from texts(part)
    if isinstance(node, str):
        yield node


def restore_side(values: dict[str, Any]) -> dict[str, Any]:
    """The values of the pods of restores, from wherever the variant has them."""
    template = values["extraConfigMaps"].get("clinic-backups-restore-pod")
    if template is None:
        pods: dict[str, Any] = values["workers"]["kubernetes"]
        return pods
    inner: dict[str, Any] = yaml.safe_load(template["data"].split("`")[1])
    return inner


def backup_side(values: dict[str, Any], variant: str) -> dict[str, Any]:
    side: dict[str, Any] = values["workers"]["celery" if variant.startswith("celery") else "kubernetes"]
    return side


def test_only_known_values_of_the_chart_are_used(values: dict[str, Any]) -> None:
    assert list(unknown(values, KNOWN)) == []
    assert list(unknown({"redis": {"persistance": {}}}, KNOWN)) == ["redis.persistance"]


def test_no_secret_and_no_git(values: dict[str, Any]) -> None:
    assert [text for text in texts(values) if SECRET.search(text)] == []
    assert "dags" not in values, "the image has the DAGs"
    assert values["images"]["airflow"] == values["images"]["pod_template"]


def test_every_setting_that_is_named_exists(values: dict[str, Any]) -> None:
    settings = {f"{PREFIX}{name.upper()}" for name in SettingFields.model_fields}
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", json.dumps(values)))
    assert len(named) > 5
    assert named <= settings


def test_only_the_restore_side_has_the_key_and_the_connection(values: dict[str, Any], variant: str) -> None:
    restores = restore_side(values)
    assert {entry["name"] for entry in restores["env"]} == OF_RESTORES
    assert restores["serviceAccount"] == {"create": False, "name": "clinic-backups-restore"}
    assert restores["labels"] == {"clinic-backups-side": "restore"}
    backups = backup_side(values, variant)
    assert backups["labels"] == {"clinic-backups-side": "backup"}
    assert backups["serviceAccount"]["automountServiceAccountToken"] is False
    everybody = {"env": values["env"], "from": values["extraEnvFrom"]}
    everybody["settings"] = values["extraConfigMaps"]["clinic-backups-settings"]
    for part in (backups, everybody):
        assert not [name for name in (*OF_RESTORES, "clinic-backups-restore") if f'"{name}"' in json.dumps(part)]


def test_the_key_is_copied_because_a_secrets_group_may_read_it(values: dict[str, Any]) -> None:
    (copy,) = restore_side(values)["extraInitContainers"]
    assert copy["command"][:3] == ["install", "-m", "400"]
    file = next(entry["value"] for entry in restore_side(values)["env"] if entry["name"].endswith("IDENTITY_FILE"))
    assert copy["command"][-1] == file
    memory = next(volume for volume in restore_side(values)["extraVolumes"] if volume["name"] == "identity")
    assert memory["emptyDir"]["medium"] == "Memory"


def test_restores_are_sent_to_the_restore_side(values: dict[str, Any], variant: str) -> None:
    env = {entry["name"]: entry["value"] for entry in values["env"]}
    if variant.startswith("celery"):
        assert values["executor"].split(",") == [
            env["CLINIC_BACKUPS_EXECUTOR"],
            env["CLINIC_BACKUPS_RESTORE_EXECUTOR"],
        ]
        (workers,) = values["workers"]["celery"]["sets"]
        assert workers["queue"] == env["CLINIC_BACKUPS_QUEUE"]
    else:
        (mount,) = values["scheduler"]["extraVolumeMounts"]
        assert env["CLINIC_BACKUPS_RESTORE_POD_TEMPLATE"] == f"{mount['mountPath']}/template.yaml"


def test_containers_may_do_little(values: dict[str, Any]) -> None:
    contexts = values["securityContexts"]
    assert contexts["pod"]["runAsNonRoot"] is True
    (copy,) = restore_side(values)["extraInitContainers"]
    for context in (contexts["containers"], copy["securityContext"]):
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert values["createUserJob"]["enabled"] is False, "its user has the password admin"


def is_restricted(pod: dict[str, Any]) -> bool:
    """Whether a pod passes Kubernetes's Pod Security Standard "restricted", as far as these pods can break it."""
    whole = pod.get("securityContext") or {}
    for container in (*pod["containers"], *(pod.get("initContainers") or ())):
        own = whole | (container.get("securityContext") or {})
        if not own.get("runAsNonRoot") or own.get("runAsUser") == 0 or own.get("allowPrivilegeEscalation") is not False:
            return False
        if own["capabilities"]["drop"] != ["ALL"] or own["seccompProfile"]["type"] != "RuntimeDefault":
            return False
    return True


def test_workers_reach_only_what_they_need() -> None:
    policies = list(yaml.safe_load_all((FOLDER / "network-policies.yaml").read_text("utf-8")))
    workers, celery = (policy["spec"] for policy in policies)
    assert workers["podSelector"]["matchExpressions"][0]["values"] == ["backup", "restore"]
    assert workers["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in workers
    assert [[entry["port"] for entry in rule["ports"]] for rule in workers["egress"]] == [
        [53, 53], [8080], [5432], [443], [587],
    ]  # fmt: skip
    assert [[entry["port"] for entry in rule["ports"]] for rule in celery["egress"]] == [[6379], [5432]]
    assert all(rule["to"] for policy in (workers, celery) for rule in policy["egress"]), "no `to` means everywhere"
    (internet,) = (peer["ipBlock"] for rule in workers["egress"] for peer in rule["to"]
                   if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0")  # fmt: skip
    private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"}
    assert set(internet["except"]) == private, "the addresses of other pods, machines and metadata servers"


def documented_accounts(variant: int) -> set[str]:
    """The service accounts that docs/kubernetes.md lists for a workload identity."""
    text = (FOLDER.parents[1] / "docs" / "kubernetes.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (1|2|both) \|", text, re.M)
    return {name for name, where in rows if where in ("both", str(variant))}


def chart() -> Path:
    if not CHART:
        pytest.skip("TESTS_AIRFLOW_CHART is not set: the folder or archive of the chart of Apache Airflow")
    return Path(CHART)


def test_the_charts_own_schema_accepts_the_values(values: dict[str, Any]) -> None:
    place = chart()
    if place.is_dir():
        text = (place / "values.schema.json").read_bytes()
    else:
        with tarfile.open(place) as archive:
            name = next(
                name for name in archive.getnames() if name.count("/") == 1 and name.endswith("values.schema.json")
            )
            file = archive.extractfile(name)
            assert file is not None
            text = file.read()
    check = jsonschema.Draft7Validator(json.loads(text))
    assert [error.message for error in check.iter_errors(values)] == []
    assert list(check.iter_errors(values | {"triggerer": {"persistance": {}}})), "the schema refuses unknown names"


def rendered(values: dict[str, Any], folder: Path) -> str:
    place = chart()
    if shutil.which("helm"):
        (folder / "values.yaml").write_text(yaml.safe_dump(values), "utf-8")
        command = ["helm", "template", "airflow", str(place), "--values", str(folder / "values.yaml")]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    try:
        helm = importlib.import_module("helm_python")
    except ModuleNotFoundError:
        pytest.skip("neither the program helm nor the package helm-python-sdk is here")
    files: dict[str, str] = helm.Chart.load(str(place)).render(values=values, name="airflow")
    return "\n---\n".join(text for name, text in files.items() if name.endswith(".yaml"))


def test_the_rendered_pods_keep_both_sides_apart(values: dict[str, Any], variant: str, tmp_path: Path) -> None:
    documents = [part for part in yaml.safe_load_all(rendered(values, tmp_path)) if part]
    named = {(part["kind"], part["metadata"]["name"]): part for part in documents}
    templates = {
        name: yaml.safe_load(text)
        for (kind, _), part in named.items()
        if kind == "ConfigMap"
        for name, text in (part.get("data") or {}).items()
        if name in ("pod_template_file.yaml", "template.yaml")
    }
    if variant.startswith("celery"):
        restores, backups = (
            templates["pod_template_file.yaml"],
            named["Deployment", "airflow-worker-backups"]["spec"]["template"],
        )
    else:
        restores, backups = templates["template.yaml"], templates["pod_template_file.yaml"]
    pods = [
        part["spec"]["template"]["spec"] for part in documents if part["kind"] in ("Deployment", "StatefulSet", "Job")
    ]
    assert len(pods) >= 5
    assert all(map(is_restricted, (*pods, restores["spec"], backups["spec"])))
    for pod, side in ((restores, "restore"), (backups, "backup")):
        assert pod["metadata"]["labels"]["clinic-backups-side"] == side
        for container in (*pod["spec"]["containers"], *(pod["spec"]["initContainers"] or ())):
            assert container["image"] == "registry.example/clinic-backups:0.1.0"
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
    env = {entry["name"] for entry in restores["spec"]["containers"][0]["env"]}
    assert env >= OF_RESTORES
    others = [part for part in (*documents, backups) if part["metadata"].get("name") != "clinic-backups-restore-pod"]
    others = [part for part in others if part.get("kind") != "ConfigMap"]
    assert not [part for part in others if any(f'"{name}"' in json.dumps(part) for name in OF_RESTORES)]
    accounts = {pod["spec"]["serviceAccountName"] for pod in (restores, backups)}
    accounts |= {named["Deployment", f"airflow-{name}"]["spec"]["template"]["spec"]["serviceAccountName"]
                 for name in ("scheduler", "api-server")}  # fmt: skip
    assert accounts == documented_accounts(2 if variant.startswith("celery") else 1)
    policy = named["NetworkPolicy", "airflow-api-server-policy"]["spec"]
    assert policy["ingress"], "without a rule, nobody reaches the API server"
