"""Which path and method is for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bulkjobs.simulator.endpoints import CONTACTS, ENDPOINTS, Endpoint
from bulkjobs.simulator.messages import Kind
from bulkjobs.simulator.results import FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulkjobs.simulator.messages import SimRequest

__all__ = ["API", "BOOKS", "LOGIN", "endpoint_of", "host_of", "job_id_of", "kind_of"]

API: Final = "/api/v1"
LOGIN: Final = "/Auth/login/v1/token"
BOOKS: Final = "/_sim/books"

_METHODS: Final[Mapping[str, Mapping[str, Kind]]] = {
    **{API + endpoint.path: {"POST": Kind.SUBMIT} for endpoint in ENDPOINTS},
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
    if path in _METHODS:
        methods = _METHODS[path]
    elif path.startswith(FILES):
        methods = {"GET": Kind.FILE}
    elif job_id := job_id_of(request):
        methods = _JOB_METHODS.get(path.removeprefix(f"{API}{endpoint_of(request).path}/{job_id}"), {})
    return methods.get(request.method, Kind.OTHER), tuple(methods)


def job_id_of(request: SimRequest) -> str:
    """Gives the id of the job that a path names, empty if it names none."""
    below = API + endpoint_of(request).path + "/"
    return request.path.removeprefix(below).partition("/")[0] if request.path.startswith(below) else ""


def endpoint_of(request: SimRequest) -> Endpoint:
    """Gives the kind of job that a path is about; that of contacts where it is about none."""
    path = request.path + "/"
    return next((one for one in ENDPOINTS if path.startswith(f"{API}{one.path}/")), CONTACTS)


def host_of(request: SimRequest) -> str:
    """Gives the host under which the client reached the service, for addresses in answers."""
    return request.headers.get("host", "localhost")
