"""The package's Airflow plugin, for a plugins folder.

An installed package is found by its entry point instead. Airflow reports a plugin that it finds twice as an error.
"""

from importlib.metadata import entry_points

if not any(point.value.startswith("clinic_backups.airflow_plugin:") for point in entry_points(group="airflow.plugins")):
    from clinic_backups.airflow_plugin import ClinicBackupsPlugin, ClinicBackupsProblems  # noqa: F401
