"""The one exception that the command line turns into a sentence and exit code 2."""


class InputError(Exception):
    """Something that the user gave and can mend; the message is one clear sentence."""
