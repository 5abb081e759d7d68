"""The one exception that the command line turns into a sentence and exit code 2."""

import contextlib
import sys

SAID = 200  # characters of another library's message


class InputError(Exception):
    """Something that the user gave and can mend; the message is one clear sentence."""


def brief(error: Exception) -> str:
    """What another library says, of which a damaged file's bytes may be a part."""
    text = " ".join(str(error).split())
    return text if len(text) <= SAID else f"{text[:SAID]}..."


def complain(sentence: str) -> None:
    """On standard error, in one line; where that cannot be written, nothing more can be done."""
    with contextlib.suppress(OSError):
        print(f"gpumlp: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
