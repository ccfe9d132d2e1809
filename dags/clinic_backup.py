"""The Airflow DAG clinic_backup, from the package."""

from clinic_backups.dags import dag_of

dag = dag_of("clinic_backup")
