"""Files that are either whole or absent: atomic writing, and reading that names what is damaged."""

import io
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gcl_core.errors import GCLError


def project_root() -> Path:
    """The project's folder: the nearest one upward from here that holds `gcl_core`, else here."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "gcl_core" / "__init__.py").exists():
            return Path(os.path.relpath(folder))
    return Path()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a whole file or none: a temporary file beside it, synchronised, then renamed.

    Its mode follows the umask, as that of any new file.

    Raises:
        OSError: no space, no permission; it names the file, and the temporary file is removed.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # the error above is the one to report
            temporary.unlink()
        if isinstance(error, OSError):  # it may name no file, or the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a whole folder or none: yields a temporary folder beside it, renamed at the end.

    Raises:
        GCLError: there is something at `path` other than an empty folder.
        OSError: it cannot be written; the temporary folder is removed.
    """
    path = path.resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise GCLError(f"{path} has files in it; name another folder")
    temporary = _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _beside(path: Path) -> Path:
    # Random, not from `tempfile`: that makes files private whatever the umask says.
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"


def atomic_json(path: Path, value: Any) -> None:
    """`atomic_write` of readable JSON."""
    atomic_write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def atomic_save(path: Path, value: dict[str, Any]) -> None:
    """`atomic_write` of what `torch.save` makes of tensors and plain values."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    atomic_write(path, buffer.getvalue())


def load_json(path: Path) -> Any:
    """Parsed JSON.

    Raises:
        GCLError: the file is not JSON; it names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise GCLError(f"cannot read {path}: {error}; move it away and run again") from error


def load_tensors(path: Path) -> dict[str, Any]:
    """What `atomic_save` wrote, on the CPU, with `weights_only=True`: no code in it is run.

    Raises:
        GCLError: the file is truncated, or is not one of tensors and plain values.
    """
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of almost any kind, for the bytes may be anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GCLError(
            f"{path} is damaged or not a file of this program ({reason[:120]}); "
            "move it away and run again"
        ) from error
    if not isinstance(value, dict):
        raise GCLError(f"{path} is not a file of this program; move it away and run again")
    return value
