"""What every worker process of a cluster on this machine does first: a preload of Dask's."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Let Ctrl-C, which a terminal sends to all its processes, end this one at once and silently.

    Python's own handler would print where it was. Nothing is lost: files are written whole.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
