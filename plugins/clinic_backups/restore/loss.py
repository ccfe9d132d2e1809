"""One side of a comparison alone, to rehearse the loss of a whole clinic and its restore."""

from __future__ import annotations

from dataclasses import replace

from clinic_backups.restore.staging import Staged, compute_keys
from clinic_backups.restore.workspace import Workspace

_APART = 10_000
"""More than there are tables: the temporary tables of both steps get names of their own."""


def one_side(workspace: Workspace, staged: Staged, *, is_loss: bool) -> Staged:
    """The comparison in which all present rows are deleted, or all rows of the backup are inserted.

    :param staged: all rows of both sides.
    """
    index = staged.index + _APART * (1 if is_loss else 2)
    shape = staged.shape
    empty = workspace.stage(f"none_{index}", [(name, shape.typed(name)) for name in shape.columns])
    compute_keys(workspace, empty, shape)
    workspace.seals.keep(empty)
    if is_loss:
        return replace(staged, index=index, wanted=empty)
    return replace(staged, index=index, present=empty)
