"""The one exception that tells a user what to mend, and text made fit for one line."""

import re

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
