"""The one exception that the command line turns into a sentence and exit code 2."""

import contextlib
import sys


class InputError(Exception):
    """Something that the user gave and can mend; the message is one clear sentence."""


def complain(sentence: str) -> None:
    """On standard error, in one line; where that cannot be written, nothing more can be done."""
    with contextlib.suppress(OSError):
        print(f"gpumlp: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
