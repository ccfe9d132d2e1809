"""``clinic-backups mail``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape

from clinic_backups.base.errors import TransientError
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import errors, print_json


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(mail)


def mail(
    send: Annotated[bool, typer.Option("--send", help="Send the mails that are due now.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how many mails of the last week were sent and how many wait. --send sends those that are due."""
    with_parts = parts()
    done = with_parts.deliver() if send else None
    counts = with_parts.outbox.counts(with_parts.clock() - timedelta(days=7))
    if json:
        print_json(counts | ({"sent_now": done.sent, "problem": done.problem} if done else {}))
    else:
        if done:
            errors.print(f"{done.sent} mails were sent now, {done.refused} were refused.")
        print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no mail")
    if done and done.problem:
        raise TransientError(f"Mail waits: {escape(done.problem)}", hint="Every run, and --send, tries again.")
