"""What a call costs, for tests of how cost grows with size."""

import gc
import time
from collections.abc import Callable


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call in this thread, without that of the collector of garbage.

    A clock on the wall counts who else works on the machine. A collection looks through all that the process holds, which
    in a run of the whole suite is far more than the call made.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        begin = time.thread_time()
        work()
        return time.thread_time() - begin
    finally:
        if collected:
            gc.enable()
