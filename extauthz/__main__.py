"""`extauthz`, and `python -m extauthz`: what has to be done before anything else is imported."""

from __future__ import annotations

import os
import sys

from extauthz.process import early_signals


def main() -> None:
    """Run the command line; the commands that run until they are told to stop are made safe first."""
    match sys.argv[1:2]:
        case ["serve"]:
            early_signals.note()
            secure()
        case ["worker"]:
            early_signals.note_for_worker()
            secure()
    from extauthz.cli import main as command_line

    command_line()


def secure() -> None:
    """Make this process one that closed streams and readers that stall do not hold up."""
    from extauthz.process import standard_streams

    standard_streams.open_closed()
    standard_streams.queue_errors()
    # Handshakes that fail are told by gRPC itself otherwise, on standard error, in a form of its own.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


if __name__ == "__main__":
    main()
