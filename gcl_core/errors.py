"""The one exception that tells a user what to mend."""


class GCLError(ValueError):
    """A mistake in settings, data or files; the message is one line and says what to do."""
