"""What is wrong with a file."""


class FileError(ValueError):
    """The file is not what it should be; the message says in what."""
