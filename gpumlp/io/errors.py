"""The error of files that cannot be loaded."""


class FileError(ValueError):
    """A file is not what it should be; the message says in what."""
