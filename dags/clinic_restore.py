"""The Airflow DAG clinic_restore, from the package."""

from clinic_backups.dags import dag_of

dag = dag_of("clinic_restore")
