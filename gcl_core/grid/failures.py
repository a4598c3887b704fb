"""What a grid's run failed with: `error.json` in its folder, until the run is tried again."""

from dataclasses import dataclass

from gcl_core.errors import GCLError, shown
from gcl_core.files import atomic_json, load_json
from gcl_core.training.runs import RunFolder

FILE = "error.json"


@dataclass(frozen=True)
class Failure:
    """What a run failed with.

    Attributes:
        text: its type and first line.
        lasts: whether it waits until it is asked for: a `GCLError` itself, which would come again.
            A full disk, a worker that died and whatever else is of the machine is tried again.
    """

    text: str
    lasts: bool


def failure_of(folder: RunFolder) -> Failure | None:
    """What a run failed with, None if it did not fail or is finished.

    Raises:
        GCLError: the file is damaged.
    """
    file = folder.path / FILE
    if folder.is_finished or not file.exists():
        return None
    error = load_json(file)
    try:
        text = shown(f"{error['type']}: {error['message']}")
        return Failure(text, lasts=error["type"] == GCLError.__name__)
    except (LookupError, TypeError):
        raise GCLError(f"{file} is damaged; remove it to have the run tried again") from None


def keep_failure(folder: RunFolder, kind: str, message: str, traceback: str = "") -> None:
    """Write what a run failed with, unless another process has finished it meanwhile.

    Raises:
        GCLError: as `RunFolder.opened`.
    """
    with folder.opened():
        if not folder.is_finished:
            error = {"type": kind, "message": message, "traceback": traceback}
            atomic_json(folder.path / FILE, error)


def forget_failure(folder: RunFolder) -> None:
    """Have the run tried again."""
    (folder.path / FILE).unlink(missing_ok=True)
