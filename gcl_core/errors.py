"""The one exception that tells a user what to mend, and text made fit for one line."""

import difflib
import re
from collections.abc import Collection, Iterable

# What moves a terminal's cursor, breaks the line or turns the direction of reading, and the bytes
# of a file name that are not UTF-8. Joiners of letters stay: some languages need them.
_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """The text with each character that is unfit for one line written as its escape sequence."""
    return _UNFIT.sub(lambda found: repr(found[0])[1:-1], text)


class GCLError(ValueError):
    """A mistake in settings, data or files; the message is one line and says what to do.

    What it quotes of others may have several lines: they are joined.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shown(re.sub(r"\s*\n\s*", " ", message)))


class MachineError(GCLError):
    """What the machine did, such as a process that was killed: the same command may get through."""


def check_known(what: str, given: object, allowed: Collection[str]) -> None:
    """Raise a `GCLError` that lists the allowed names unless what is given is one of them."""
    if given not in allowed:
        hint = close_to(given, allowed)
        raise GCLError(f"{what} {given!r} is unknown{hint}; allowed: {', '.join(allowed)}")


def close_to(given: object, allowed: Iterable[str]) -> str:
    """Which of the allowed names was probably meant, in brackets, or nothing."""
    close = difflib.get_close_matches(str(given).lower().replace("-", "_"), allowed, 1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few of some names, and how many more there are, for a message of one line."""
    first = list(names)
    more = f" and {len(first) - most} more" if len(first) > most else ""
    return ", ".join(shown(name) for name in first[:most]) + more
