"""The API and the pages below ``/backups`` in Airflow's API server."""
