"""More epochs of a run that has ended: the longer run begins with its checkpoint, if it may."""

import contextlib
import dataclasses
import logging

from gcl_core.errors import GCLError
from gcl_core.files import load_json
from gcl_core.methods.settings import Stage, learning_rate
from gcl_core.training.runs import RunFolder

log = logging.getLogger(__name__)


def begin_from_shorter(folder: RunFolder, stage: Stage) -> None:
    """Copy the last checkpoint of the longest run that only has fewer epochs, if that is the same.

    It is the same if the first epochs are: the learning rates do not depend on the number of
    epochs (`schedule constant`, no warm-up), nor does when class weights come into force, nor the
    objective. Where they do, the log says so.

    Args:
        folder: of stage 1 of the longer run; one that has been begun is left as it is.
        stage: its settings.

    Raises:
        GCLError: the other run's checkpoint is damaged.
    """
    if folder.path.exists():
        return
    shorter = _shorter(folder)
    if shorter is None:
        return
    epochs = int(shorter.identity["stage1"]["epochs"])
    reason = _differs(stage, epochs)
    if reason:
        log.info("%s has %d epochs of this, but %s: from the start", shorter.path, epochs, reason)
        return
    checkpoint = shorter.load_checkpoint()
    assert checkpoint is not None
    with folder.opened():
        state = {key: part for key, part in checkpoint.items() if key != "run"}
        folder.save_checkpoint(state, [])
    log.info("going on from the %d epochs of %s", epochs, shorter.path)


def _differs(stage: Stage, epochs: int) -> str:
    """Why the first epochs of a stage are not those of the same stage with fewer epochs."""
    if stage.objective.own_outputs:
        return f"objective {stage.objective.name} shifts its weight with the number of epochs"
    try:
        short = dataclasses.replace(stage, epochs=epochs)
    except GCLError:  # a deferral that leaves it no epoch
        return "it defers class weights"
    if any(learning_rate(stage, e) != learning_rate(short, e) for e in range(epochs)):
        return "its learning rates depend on the number (--schedule constant --warmup 0: not)"
    if stage.balanced_from != short.balanced_from:
        return "when class weights or sampler come into force depends on the number"
    return ""


def _shorter(folder: RunFolder) -> RunFolder | None:
    """The longest finished run beside a folder whose settings differ in fewer epochs only."""
    best, most, wanted = None, 0, folder.identity["stage1"]["epochs"]
    for file in folder.path.parent.glob("*/settings.json"):
        if not (file.parent / "result.json").exists():
            continue
        found = load_json(file)
        with contextlib.suppress(LookupError, TypeError):  # not the settings of a run
            identity, epochs = found["identity"], found["identity"]["stage1"]["epochs"]
            longer = {**identity, "stage1": {**identity["stage1"], "epochs": wanted}}
            if longer == folder.identity and most < epochs < wanted:
                most, best = epochs, RunFolder(folder.path.parent, identity, found["about"])
    return best
