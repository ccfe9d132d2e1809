#!/usr/bin/env bash
# Runs once before Airflow starts, and at every `docker compose up`: each step changes nothing that is right already.
set -euo pipefail

airflow db migrate
clinic-backups catalog migrate
clinic-backups store init
airflow pools set clinic_backups 4 "Clinics that are read at the same time"

# The password goes through stdin: arguments can be seen in the list of processes.
answer_twice() { printf '%s\n%s\n' "$AIRFLOW_ADMIN_PASSWORD" "$AIRFLOW_ADMIN_PASSWORD" | "$@"; }
answer_twice airflow users create --role Admin --username "$AIRFLOW_ADMIN_USER" --email "$AIRFLOW_ADMIN_EMAIL" \
  --firstname Backups --lastname Operator
# A user that is there keeps its password in the step above; .env is what counts.
answer_twice airflow users reset-password --username "$AIRFLOW_ADMIN_USER"
