"""Files that are either whole or absent: atomic writing, and reading that names what is damaged."""

import glob
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from gcl_core.errors import GCLError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def project_root() -> Path:
    """The project's folder: the nearest one upward from here that holds `gcl_core`, else here."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "gcl_core" / "__init__.py").exists():
            return Path(os.path.relpath(folder))
    return Path()


def at_home(path: str | Path) -> Path:
    """The path with `~` as the user's home; as it is where the system knows no such home."""
    return Path(os.path.expanduser(path))


def prepare(path: Path) -> None:
    """Make a file's folder and see that it can be written: said before the work, not after it.

    Raises:
        GCLError: there is something else, such as a folder or a device.
        OSError: no space, no permission; it names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path), _temporary(path, lambda place: place.touch(exist_ok=False)) as temporary:
        temporary.unlink()


def atomic_write(path: Path, data: bytes) -> None:
    """Write a whole file or none: a temporary file beside it, synchronised, then renamed.

    Its mode follows the umask, as that of any new file. What a killed process left of the same file
    is removed.

    Raises:
        GCLError: there is something else, such as a folder or a device.
        OSError: no space, no permission; it names the file, and the temporary file is removed.
    """
    with _naming(path), _temporary(path, lambda place: place.touch(exist_ok=False)) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Refuse to replace what is no file; have an error name the file, not the temporary one."""
    if path.exists() and not path.is_file():
        raise GCLError(f"{path} is there, and is no file that could be replaced; name another")
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a whole folder or none: yields a temporary folder beside it, renamed at the end.

    What a killed process left of the same folder is removed.

    Raises:
        GCLError: there is something at `path` other than an empty folder.
        OSError: it cannot be written; the temporary folder is removed.
    """
    path = path.resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise GCLError(f"{path} has files in it; name another folder")
    with _temporary(path, lambda place: place.mkdir(parents=True)) as temporary:
        yield temporary
        os.replace(temporary, path)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left of a file or folder, or of all, unless another is at it."""
    for leftover in folder.glob(f".{glob.escape(name) if name else '*'}.*.tmp"):
        with suppress(OSError), _held(leftover):
            _remove(leftover)


@contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A file or folder beside a path, removed after an error; first those that nobody holds are."""
    remove_leftovers(path.parent, path.name)
    with ExitStack() as stack:
        while True:
            # Random, not from `tempfile`: that makes files private whatever the umask says.
            place = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
            make(place)
            with suppress(FileNotFoundError):
                stack.enter_context(_held(place, wait=True))
                if place.exists():  # else it was taken for a leftover before it was held
                    break
        try:
            yield place
        except BaseException:
            _remove(place)
            raise


@contextmanager
def _held(place: Path, wait: bool = False) -> Iterator[None]:
    """Hold a file or folder; that ends with this process, whatever ends it.

    Raises:
        OSError: another process holds it, or this system cannot tell; not with `wait`.
    """
    if fcntl is None:
        if not wait:
            raise OSError
        yield
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        with suppress(OSError) if wait else nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _remove(place: Path) -> None:
    with suppress(OSError):  # there is another error to report, or nobody asked for it
        shutil.rmtree(place) if place.is_dir() else place.unlink()


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
    except (ValueError, OSError, RecursionError) as error:
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
