"""One certificate as a file for people: the document, its signature, the public key, and how to verify them."""

from __future__ import annotations

import io
import zipfile

from clinic_backups.base.clinic_id import ClinicId
from clinic_backups.catalog.proofs import Proofs
from clinic_backups.drill.signature import DOCUMENT, PUBLIC, VERIFY, signed_files
from clinic_backups.web.problems import NotVisible

MEDIA_TYPE = "application/zip"
COMMAND = f"{VERIFY}\n\nCompare {PUBLIC} with the key that you got from the operator by another way.\n"


def certificate_of(proofs: Proofs, clinic_id: ClinicId) -> tuple[bytes, str]:
    """The certificate of the newest proof of a clinic, and the name of its file. It holds no rows.

    :raises NotVisible: no backup of it is proven.
    """
    proof = proofs.last_good(clinic_id)
    if proof is None:
        raise NotVisible(f"A certificate of clinic {clinic_id}")
    if proof.signature is not None and proof.public_key is not None:
        files = signed_files(proof.certificate, proof.signature, proof.public_key)
        files["verify.txt"] = COMMAND.encode("ascii")
    else:
        files = {DOCUMENT: proof.certificate.encode("utf-8")}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in files.items():
            target.writestr(name, data)
    return packed.getvalue(), f"certificate_{proof.number}.zip"
