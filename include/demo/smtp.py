"""A mail server for the demo: takes every mail on loopback and writes each one into a folder as an .eml file.

Run as ``python -m include.demo.smtp <port> <folder>``; ends on SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from include.demo.environment import HOST


class FolderHandler:
    """Accepts all mail; nothing is ever sent on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Write one mail, with its recipients on top, under a name that sorts by time."""
        path = self.folder / f"{time.time_ns()}.eml"
        recipients = f"X-Envelope-To: {', '.join(envelope.rcpt_tos)}\r\n".encode()
        path.write_bytes(recipients + (envelope.original_content or b""))
        print(f"{path.name} for {', '.join(envelope.rcpt_tos)}")
        return "250 OK"


def main() -> None:
    """Serve until SIGTERM."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    controller = Controller(FolderHandler(folder), hostname=HOST, port=port)
    controller.start()
    print(f"listening on {HOST}:{port}")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    controller.stop()


if __name__ == "__main__":
    main()
