"""The DAGs, one module each. A project's ``dags`` folder has a file of three lines for each of them."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec
from typing import Any

from clinic_backups.base.project import DAG_IDS


def dag_of(dag_id: str) -> Any:
    """Make a DAG, with the settings of now.

    :raises LookupError: there is no such DAG.
    """
    if dag_id not in DAG_IDS:
        raise LookupError(f"There is no DAG {dag_id!r}. There are {', '.join(DAG_IDS)}.")
    spec = find_spec(f"{__name__}.{dag_id}")
    assert spec is not None and spec.loader is not None  # noqa: S101 - the file was found
    # Run anew each time, and not kept: the settings may have changed since.
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, dag_id)()
