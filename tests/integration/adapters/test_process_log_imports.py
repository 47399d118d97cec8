"""What the process log loads is in the memory of every sidecar."""

from __future__ import annotations

import subprocess
import sys


def test_the_process_log_loads_no_renderer_for_terminals_and_keeps_nobody_from_loading_it() -> None:
    """In a process of its own: here it is loaded."""
    code = (
        "import sys, extauthz.adapters.process_log\n"
        "assert not [name for name in sys.modules if name.startswith(('rich', 'pygments'))]\n"
        "from rich.traceback import Traceback\n"
        "print(Traceback.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("Traceback\n", "")
