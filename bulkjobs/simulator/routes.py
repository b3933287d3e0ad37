"""Which path and method is for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.messages import Kind
from bulkjobs.simulator.results import FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulkjobs.simulator.messages import SimRequest

__all__ = ["API", "BOOKS", "LOGIN", "host_of", "job_id_of", "kind_of"]

API: Final = "/api/v1"
LOGIN: Final = "/Auth/login/v1/token"
BOOKS: Final = "/_sim/books"

_JOBS: Final = f"{API}/contact/job"
_METHODS: Final[Mapping[str, Mapping[str, Kind]]] = {
    _JOBS: {"POST": Kind.SUBMIT},
    f"{API}/admin/jobs": {"GET": Kind.LIST},
    f"{API}/admin/usage": {"GET": Kind.USAGE},
    LOGIN: {"POST": Kind.LOGIN},
    f"{LOGIN}.json": {"POST": Kind.LOGIN},
}
# By what follows the id of the job.
_JOB_METHODS: Final[Mapping[str, Mapping[str, Kind]]] = {
    "": {"GET": Kind.STATUS, "DELETE": Kind.CANCEL},
    "/results": {"GET": Kind.RESULTS},
}


def kind_of(request: SimRequest) -> tuple[Kind, tuple[str, ...]]:
    """Gives the kind of a request, and the methods its path knows."""
    path = request.path
    methods: Mapping[str, Kind] = {}
    if path.startswith(f"{_JOBS}/"):
        if job_id := job_id_of(request):
            methods = _JOB_METHODS.get(path.removeprefix(f"{_JOBS}/{job_id}"), {})
    elif path.startswith(FILES):
        methods = {"GET": Kind.FILE}
    else:
        methods = _METHODS.get(path, {})
    return methods.get(request.method, Kind.OTHER), tuple(methods)


def job_id_of(request: SimRequest) -> str:
    """Gives the id of the job that a path names."""
    return request.path.removeprefix(f"{_JOBS}/").partition("/")[0]


def host_of(request: SimRequest) -> str:
    """Gives the host under which the client reached the service, for addresses in answers."""
    return request.headers.get("host", "localhost")
