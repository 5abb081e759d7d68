"""What the files of all kinds of estimators share: which class it is, attributes of a subclass of
the user's own, and what set_fit_request and its like have asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpumlp.estimators.messages import warn
from gpumlp.io.errors import FileError
from gpumlp.utils.schema import anything

REQUESTS = {str: {str: (None, bool, str)}}


# ---------------------------------------------------------------- classes
def kind_of(read: dict[str, Any], known: dict[str, type]) -> Any:
    """The class of a description: the user's own, or the one of that name among the known."""
    kind = read.get("kind")
    if kind is None:
        return known[read["class"]]
    if not (isinstance(kind, type) and issubclass(kind, tuple(known.values()))):
        raise FileError(f"the file's estimator is a {read['class']}, which {kind!r} is not")
    return kind


def with_own(schema: dict[str, Any], kind: type, names: Iterable[Any]) -> dict[str, Any]:
    """The schema of a class's attributes, given that of gpumlp's.  A subclass of the user's own has
    also those others among the names that end as a fit's do, and that the class does not define
    otherwise."""
    if kind.__module__.partition(".")[0] == "gpumlp":
        return schema
    taken = {name.rstrip("?") for name in schema}
    return schema | {name: anything for name in names if name not in taken and _is_own(kind, name)}


def _is_own(kind: type, name) -> bool:
    defined = getattr(kind, name, None)
    public = name.endswith("_") and not name.startswith("_")
    return public and not (callable(defined) or hasattr(defined, "__get__"))


def of_fit(estimator) -> set[str]:
    """The names of the attributes that are a fit's by their end."""
    return {name for name in vars(estimator) if name.endswith("_") and not name.startswith("_")}


def warn_of_others(estimator, others: set[str]) -> None:
    if others:
        names = ", ".join(sorted(others))
        warn(f"{names} is left out of the file, as no attribute of {type(estimator).__name__}")


# ---------------------------------------------------------------- metadata routing
def requests_of(estimator) -> dict[str, dict]:
    """What set_fit_request and its like have asked for: method -> {name: request}."""
    asked = vars(estimator).get("_metadata_request")
    if asked is None:
        return {}
    methods = {name: getattr(each, "requests", None) for name, each in vars(asked).items()}
    return {name: dict(requests) for name, requests in methods.items() if requests}


def take_requests(estimator, requests: dict[str, dict]) -> None:
    if requests:
        asked = estimator.get_metadata_routing()
        for method, each in requests.items():
            for name, request in each.items():
                getattr(asked, method).add_request(param=name, alias=request)
        estimator._metadata_request = asked
