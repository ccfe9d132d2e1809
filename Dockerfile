# The official image of the Airflow version that requirements.txt locks, with the Python that the tests run with.
FROM apache/airflow:3.3.2-python3.11

# PostgreSQL's programs: pg_dump for the shared data, and initdb, pg_ctl and postgres for drills. They have to be at least as
# new as the clinics' database: docker build --build-arg POSTGRES=18. Debian 12 has only 15, so they come from the
# PostgreSQL project's own packages, whose script is in postgresql-common. No cluster is made, and no server is started.
ARG POSTGRES=17
USER root
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-common \
 && echo 'create_main_cluster = false' >> /etc/postgresql-common/createcluster.conf \
 && bash /usr/share/postgresql-common/pgdg/apt.*.sh -y \
 && apt-get install --yes --no-install-recommends "postgresql-${POSTGRES}" \
 && rm -rf /var/lib/apt/lists/* \
 && "/usr/lib/postgresql/${POSTGRES}/bin/initdb" --version \
 && "/usr/lib/postgresql/${POSTGRES}/bin/pg_dump" --version
USER airflow

# Dependencies first: they change seldom, and this layer is the slow one. pip refuses what the locks do not name.
COPY --chown=airflow:0 requirements.txt requirements.in pyproject.toml setup.py ./
COPY --chown=airflow:0 include/docker/requirements.txt include/docker/
RUN pip install --no-cache-dir --require-hashes -r requirements.txt -r include/docker/requirements.txt

COPY --chown=airflow:0 dags/ dags/
COPY --chown=airflow:0 plugins/ plugins/
COPY --chown=airflow:0 include/ include/

# Editable: the command `clinic-backups` and Airflow's plugins folder then run the same files. No build isolation:
# setuptools is in the lock. The import fails the build, not the first start, when the locks and the base image do not
# fit; its AIRFLOW_HOME is removed again, so that nothing that Airflow writes at its first call gets into the image.
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && mkdir /tmp/check \
 && AIRFLOW_HOME=/tmp/check python -c 'import clinic_backups, airflow.providers.celery.executors.celery_executor, \
airflow.providers.cncf.kubernetes.executors.kubernetes_executor, \
airflow.providers.fab.auth_manager.fab_auth_manager' \
 && rm -r /tmp/check
