"""What a project has of the package: where its files lie, in a checkout or in a wheel, and the names of its DAGs."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
DAG_IDS = tuple(sorted(path.stem for path in (_PACKAGE / "dags").glob("clinic_*.py")))
"""The ids of all DAGs, each with a module of its name. They are not imported: this needs no Airflow."""

CHECKOUT = _PACKAGE.parents[1]
IS_CHECKOUT = (CHECKOUT / "include" / "sql").is_dir() and (CHECKOUT / "pyproject.toml").is_file()
"""Whether the package runs from its repository."""
_WHEEL = _PACKAGE / "project"

PROJECT_SQL = CHECKOUT / "include" / "sql" if IS_CHECKOUT else _WHEEL / "sql"
PROJECT_EMAIL = CHECKOUT / "include" / "email" if IS_CHECKOUT else _WHEEL / "email"
ENV_EXAMPLE = CHECKOUT / ".env.example" if IS_CHECKOUT else _WHEEL / "env.example"
