"""The Airflow DAG clinic_restore_drill, from the package."""

from clinic_backups.dags import dag_of

dag = dag_of("clinic_restore_drill")
