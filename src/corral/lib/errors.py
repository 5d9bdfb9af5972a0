"""Every error a user may see, with its HTTP status and its exit code.

    CorralError
    ├── Invalid        400  2    the input itself is wrong
    │   └── Unprocessable 422 2  well-formed, but breaks a rule; carries details per field
    ├── Unauthenticated 401 6    nobody said who is asking
    ├── Forbidden      403  6    asked by somebody who may not
    ├── NotFound       404  3    the thing named does not exist
    │   └── WrongMethod 405 3    it exists and is asked for by another method; `allowed` says which
    ├── Conflict       409  4    it clashes with what is there or under way
    │   └── Stale      412  4    what it was decided on has changed meanwhile
    ├── TooLarge       413  2    more than the limit that the message names
    ├── TooMany        429  5    too much waits already; `retry_after_s` says when to try again
    ├── NotLeader      307  5    another master leads; `leader` says where
    ├── Unavailable    503  5    nothing of it was done, try again later; `retry_after_s` says when
    │   └── Doubtful   504  5    it was begun, and nobody knows whether it was done
    ├── Unimplemented  501  2    understood, but nothing that this release does
    └── Failed         500  1    the work was tried and did not succeed

Messages say what was wanted, what was found and what to do; no full stop.
"""


class CorralError(Exception):
    """Base of all errors that a dialect renders in its own format.

    Units: `retry_after_s` seconds until the same may be asked again, None where asking again does not help or harms.
    """

    status = 500
    exit_code = 1
    retry_after_s: float | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(CorralError):
    status = 400
    exit_code = 2


class Unprocessable(Invalid):
    """Shapes: `details` maps a field path such as `/healthChecks(0)/port` to its errors."""

    status = 422

    def __init__(self, message: str, details: dict[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.details = details or {}


class Unauthenticated(CorralError):
    status = 401
    exit_code = 6


class Forbidden(CorralError):
    status = 403
    exit_code = 6


class NotFound(CorralError):
    status = 404
    exit_code = 3


class WrongMethod(NotFound):
    status = 405

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class Conflict(CorralError):
    """Shapes: `blockers` are ids of what stands in the way, such as deployments."""

    status = 409
    exit_code = 4

    def __init__(self, message: str, blockers: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.blockers = blockers


class Stale(Conflict):
    status = 412


class TooLarge(CorralError):
    status = 413
    exit_code = 2


class TooMany(CorralError):
    status = 429
    exit_code = 5
    retry_after_s: float

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotLeader(CorralError):
    """Shapes: `leader` is `host:port`."""

    status = 307
    exit_code = 5

    def __init__(self, message: str, leader: str) -> None:
        super().__init__(message)
        self.leader = leader


class Unavailable(CorralError):
    status = 503
    exit_code = 5

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Doubtful(Unavailable):
    status = 504

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.retry_after_s = None


class Unimplemented(CorralError):
    status = 501
    exit_code = 2


class Failed(CorralError):
    status = 500
    exit_code = 1
