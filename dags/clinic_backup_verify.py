"""The Airflow DAG clinic_backup_verify, from the package."""

from clinic_backups.dags import dag_of

dag = dag_of("clinic_backup_verify")
