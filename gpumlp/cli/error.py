"""The one exception that the command line turns into a sentence and exit code 2."""

import contextlib
import sys

OPTIONS = {"batch_size": "--batch-size", "sizes": "--hidden"}  # of `gpumlp train`, by the engine's
SAID = 200  # characters of another library's message


class InputError(Exception):
    """Something that the user gave and can mend; the message is one clear sentence."""


def brief(error: Exception) -> str:
    """What another library says, of which a damaged file's bytes may be a part."""
    text = " ".join(str(error).split())
    return text if len(text) <= SAID else f"{text[:SAID]}..."


def in_options(error: MemoryError, command: str) -> str:
    """What there is no memory for, and the command's options that it depends on."""
    facts = getattr(error, "facts", "")
    if not facts:
        return f"not enough memory: {str(error).removeprefix('out of memory: ')}"
    if command != "train":
        return f"{facts}; give fewer samples at once"
    lower = [option for name, option in OPTIONS.items() if name in getattr(error, "lower", ())]
    narrow = ", or use --dtype float32" if getattr(error, "narrows", False) else ""
    return f"{facts}; lower {' or '.join(lower)}{narrow}"


def complain(sentence: str) -> None:
    """On standard error, in one line; where that cannot be written, nothing more can be done."""
    with contextlib.suppress(OSError):
        print(f"gpumlp: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
