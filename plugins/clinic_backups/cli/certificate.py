"""``clinic-backups certificate``: the signed certificates of drills."""

from __future__ import annotations

import json as json_
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from clinic_backups.base.errors import IntegrityError, PermanentError, SettingsError
from clinic_backups.base.plain import iso
from clinic_backups.base.text import one_line
from clinic_backups.catalog.proofs import ProofRecord, Proofs
from clinic_backups.cli.clinic_param import clinic_arg
from clinic_backups.cli.environment import parts
from clinic_backups.cli.output import errors, print_json, print_table, styled
from clinic_backups.drill import signature

certificate = typer.Typer(help="Certificates of drills.", no_args_is_help=True)
MAX_BYTES = 16 * 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(certificate, name="certificate")


@certificate.command()
def keygen(file: Annotated[Path, typer.Argument(help="Where the secret key is written, for its owner alone.")]) -> None:
    """Make the key that signs certificates, and print its public key for whoever verifies them."""
    key = signature.SigningKey.generate()
    key.save(file)
    print(key.public_pem, end="")
    errors.print(
        f"The secret key is in {escape(str(file))}. Set CLINIC_BACKUPS_CERTIFICATE_KEY_FILE to it where drills run."
    )


@certificate.command()
def show(
    number: Annotated[int | None, typer.Argument(metavar="[ID]", help="Number of a certificate.")] = None,
    clinic: Annotated[
        Any, typer.Option(parser=clinic_arg, metavar="ID", help="All certificates of this clinic, the newest first.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one certificate, those of one clinic, or the newest one of each clinic."""
    proofs = parts().proofs
    if number is not None:
        document = json_.loads(_known(proofs, number).certificate)
        print_json(document)
        return
    found = proofs.newest() if clinic is None else proofs.of_clinic(clinic)
    if json:
        print_json([proof.to_json() for proof in found])
        return
    print_table("Certificates", COLUMNS, [cells(proof) for proof in found])


@certificate.command()
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Documents; beside each lies its signature, with the ending .sig."),
    ],
    key: Annotated[Path, typer.Option(help="The public key, from the operator and not from whoever gave the files.")],
) -> None:
    """Verify that certificates were signed with a key, and say what they certify. Needs no catalog and no settings.

    The signature of certificate.json is certificate.sig. openssl verifies the same: docs/drills.md has the command.
    """
    public, bad = _read(key), 0
    for file in files:
        try:
            document = _read(file)
            signature.verify(document, _read(file.with_suffix(".sig")), public)
        except IntegrityError as error:
            bad += 1
            errors.print(f"[red]{escape(str(file))} is not valid.[/] {escape(error.message)} {escape(error.hint)}")
            continue
        told = json_.loads(document)
        outcome = "proven" if told["outcome"] == "proven" else "NOT proven: the drill failed"
        unit = f"{told['unit']['id']} {told['unit']['name']!r}"
        said = f"backup {told['backup']['id']} of {unit}, {outcome}, at {told['at']}, in {told['seconds']} s"
        print(f"{file}: the signature is valid. Certificate {told['number']}: {one_line(said)}")
    if bad:
        raise IntegrityError(
            f"{bad} of {len(files)} certificates are not valid.", hint="Do not rely on them. The lines above say why."
        )


@certificate.command()
def export(
    number: Annotated[int, typer.Argument(metavar="ID", help="Number of the certificate.")],
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
) -> None:
    """Write a certificate, its signature and the public key into a folder."""
    proof = _known(parts().proofs, number)
    if proof.signature is None or proof.public_key is None:
        raise PermanentError(
            f"Certificate {number} is not signed: there was no key when it was made.",
            hint="Set CLINIC_BACKUPS_CERTIFICATE_KEY_FILE where drills run, then run `clinic-backups drill` again."
            " `clinic-backups certificate show` shows an unsigned one.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SettingsError(f"{folder} is not empty.", hint="Give a new folder.")
        for name, data in signature.signed_files(proof.certificate, proof.signature, proof.public_key).items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written: {error.strerror}.", hint="Give another folder.") from None
    print(signature.VERIFY)
    errors.print(f"Written to {escape(str(folder))}{os.sep}. This command verifies it there.")


COLUMNS = (
    ("number", True), ("clinic", False), ("name", False), ("backup", False), ("outcome", False), ("at", False),
    ("seconds", True), ("restored in", False), ("signed", False), ("error", False),
)  # fmt: skip


def cells(proof: ProofRecord) -> list[str]:
    """One proof as a row of a table."""
    return [
        str(proof.number), escape(str(proof.clinic_id)), escape(one_line(proof.clinic_name)), escape(proof.backup_id),
        styled(proof.outcome), iso(proof.finished_at.replace(microsecond=0)), f"{proof.seconds:.1f}",
        escape(proof.place), "yes" if proof.signature else "no", escape(one_line(proof.error or "")),
    ]  # fmt: skip


def _known(proofs: Proofs, number: int) -> ProofRecord:
    found = proofs.get(number)
    if found is None:
        raise PermanentError(
            f"There is no certificate {number}.", hint="`clinic-backups certificate show` lists the newest ones."
        )
    return found


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES)
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}.", hint="`clinic-backups certificate export` writes all files."
        ) from None
