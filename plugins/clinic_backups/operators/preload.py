"""Prepares in the scheduler what each task would prepare again: the mails' templates.

LocalExecutor forks the scheduler, so its tasks inherit them. Compiling them takes as long as several small backups.
With another executor each task does it itself, and so it does for a template that was changed meanwhile.
"""

from __future__ import annotations

import logging

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)


@hookimpl
def on_starting(component: object) -> None:
    """In the scheduler, before it starts its workers. What is wrong is left to the tasks, which report it.

    DAG processor and triggerer do it too: a job does not know its type yet when Airflow calls this.
    """
    if type(component).__name__ != "Job":
        return
    from clinic_backups.base.errors import ClinicBackupsError
    from clinic_backups.base.load_settings import load_usable
    from clinic_backups.notify import sending  # noqa: F401 - for the tasks
    from clinic_backups.notify.templates import Templates

    try:
        settings, _ = load_usable()
        Templates(settings.email_dir, settings.zone, words=settings.tenant_words).check()
    except ClinicBackupsError as error:
        log.warning("Mails are prepared by each task, because a template is wrong: %s", error)
