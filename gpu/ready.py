"""Say in one line why a bundle cannot work on this machine: python ready.py ACCELERATOR."""

import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def main(accelerator: str) -> str | None:
    """Return what is in the way, if anything is; another version of a small package is not."""
    for wanted in map(Requirement, requires("gcl-core") or ()):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": "grid"}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            return f"this bundle needs {wanted}, which is not installed here"
        if not wanted.specifier.contains(found, prereleases=True):
            unfit = f"this bundle is for {wanted}, and here is {found}"
            if wanted.name in ("torch", "torchvision"):
                return f"{unfit}; make another one"
            print(f"run.sh: {unfit}; trying all the same", file=sys.stderr)
    try:
        import torch

        import gcl_core.grid.cluster  # noqa: F401
    except Exception as error:  # of any kind, as of a library that is built for another one
        return f"gcl_core cannot be imported here: {type(error).__name__}: {error}"
    if accelerator == "gpu" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU here; ACCELERATOR=cpu works without one"
    return None


if __name__ == "__main__":
    if problem := main(*sys.argv[1:]):
        sys.exit(f"run.sh: {problem}")
