# The official image of the Airflow version that requirements.txt locks, with the Python that the tests run with.
FROM apache/airflow:3.3.2-python3.11

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
