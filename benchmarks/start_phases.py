"""Is `extauthz serve`, and writes down how long each phase of its start took; run by start.py with: serve --config FILE

When the process listens, the phases are written as JSON to the file that PHASES names: seconds by name. STARTED is when the process
was made, on the monotonic clock, which is the same for all processes of a machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()
LISTENING = "listening, and one collection of garbage"

phases: dict[str, float] = {}


def timed(owner: Any, attribute: str, phase: str) -> None:
    """Have a function tell how long a call took."""
    original: Callable[..., Any] = getattr(owner, attribute)

    def call(*arguments: Any, **options: Any) -> Any:
        began = time.monotonic()
        answer = original(*arguments, **options)
        phases[phase] = time.monotonic() - began
        return answer

    setattr(owner, attribute, call)


def awaited(owner: Any, attribute: str, phase: str, end: Callable[[], None] = lambda: None) -> None:
    """Have a coroutine function tell how long it took without the phases within, and do something at its end."""
    original: Callable[..., Coroutine[Any, Any, Any]] = getattr(owner, attribute)

    async def call(*arguments: Any, **options: Any) -> Any:
        began, others = time.monotonic(), sum(phases.values())
        answer = await original(*arguments, **options)
        phases[phase] = time.monotonic() - began - (sum(phases.values()) - others)
        end()
        return answer

    setattr(owner, attribute, call)


def write() -> None:
    """Write the phases down; what was in none of them is the rest."""
    phases["the rest"] = time.monotonic() - float(os.environ["STARTED"]) - sum(phases.values())
    file = Path(os.environ["PHASES"])
    file.with_suffix(".new").write_text(json.dumps(phases))
    file.with_suffix(".new").rename(file)


def main() -> None:
    """Import what `serve` imports, and serve."""
    phases["interpreter"] = BEGAN - float(os.environ["STARTED"])
    from extauthz import __main__ as entry
    from extauthz.cli import configuration
    from extauthz.runtime.build import RuntimeBuilder
    from extauthz.serve import main as serve
    from extauthz.serve import worker

    phases["imports"] = time.monotonic() - BEGAN
    timed(configuration, "load", "configuration and routes")
    timed(serve, "choose", "libnghttp2 and uvloop")
    awaited(RuntimeBuilder, "open", "store, verifiers, codec")
    awaited(worker, "_primed", "keys of the issuer, first word of the store")
    awaited(worker.Worker, "begin", LISTENING, write)
    entry.main()


if __name__ == "__main__":
    main()
