"""Every way in which a request can fail: status, stable code, and words that are safe to send.

Not its duty: turning an error into an HTTP response (`service.app`) or counting it
(`service.telemetry.metrics`). A message names what was wrong and what to do, from the service's own
words and limits only: never a path, a library's message or anything of the picture.
"""

# Named for what happened: each is an answer to a client, not a defect of the program.
# ruff: noqa: N818

from typing import ClassVar


class ServiceError(Exception):
    """A failure with an answer.

    Attributes:
        status: HTTP status.
        code: Stable name for programs; also the label that rejections are counted under.
        title: What this kind of failure is, the same every time (RFC 9457).
        detail: What was wrong this time and what to do.
        retry_after_s: When it makes sense to try again, in seconds; None where it does not.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        """Say what was wrong this time."""
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class NoImage(ServiceError):
    """Nothing was sent, or an empty picture."""

    status, code, title = 400, "no_image", "No image was sent"


class BadRequest(ServiceError):
    """The request itself is malformed: a broken form, a parameter out of range."""

    status, code, title = 400, "bad_request", "The request is malformed"


class BadImage(ServiceError):
    """The bytes are not a picture, or a broken one."""

    status, code, title = 400, "bad_image", "The image cannot be read"


class Unauthorized(ServiceError):
    """No API key, or a wrong one."""

    status, code, title = 401, "unauthorized", "A key is needed"


class NotFound(ServiceError):
    """A path that the service does not have."""

    status, code, title = 404, "not_found", "There is nothing at this path"


class MethodNotAllowed(ServiceError):
    """A path that the service has, and a method that the path has not."""

    status, code, title = 405, "method_not_allowed", "The method is not allowed at this path"


class UploadTimeout(ServiceError):
    """The request's body did not arrive in time."""

    status, code, title = 408, "upload_timeout", "The upload took too long"


class ImageTooLarge(ServiceError):
    """More bytes than the service takes."""

    status, code, title = 413, "image_too_large", "The image has too many bytes"


class RequestTooLarge(ServiceError):
    """More bytes in one request, all its pictures together, than the service takes."""

    status, code, title = 413, "request_too_large", "The request has too many bytes"


class TooManyPixels(ServiceError):
    """More pixels than the service decodes, or such as take too much memory or time."""

    status, code, title = 413, "too_many_pixels", "The image has too many pixels"


class TooManyImages(ServiceError):
    """More pictures in one request than the service takes."""

    status, code, title = 413, "too_many_images", "The request has too many images"


class UnsupportedType(ServiceError):
    """A content type, or a kind of picture, that the service does not read."""

    status, code, title = 415, "unsupported_type", "This type of content is not supported"


class HeadersTooLarge(ServiceError):
    """More headers, or larger ones, than the service reads."""

    status, code, title = 431, "headers_too_large", "The request's headers are too large"


class InferenceFailed(ServiceError):
    """The network failed on this face, and on this face alone."""

    status, code, title = 500, "inference_failed", "The face could not be classified"


class InternalError(ServiceError):
    """Anything that nobody foresaw; the log has it."""

    status, code, title = 500, "internal_error", "The service failed"


class NoDetector(ServiceError):
    """Faces were to be looked for, and this service was started without a detector."""

    status, code = 501, "no_detector"
    title = "No face detector"


class UnsupportedCoding(ServiceError):
    """A transfer coding that the service does not read."""

    status, code = 501, "unsupported_coding"
    title = "This transfer coding is not supported"


class QueueFull(ServiceError):
    """No room among the waiting faces."""

    status, code, title = 503, "queue_full", "The service is at its limit"


class Overloaded(ServiceError):
    """There is room, but the wait would outlast the deadline."""

    status, code, title = 503, "overloaded", "The service could not answer in time"


class OutOfMemory(ServiceError):
    """The process can have no memory for this picture at present."""

    status, code, title = 503, "out_of_memory", "The service is short of memory"


class TooManyConnections(ServiceError):
    """More connections at once than the service holds."""

    status, code, title = 503, "too_many_connections", "The service is at its limit of connections"


class ShuttingDown(ServiceError):
    """The service is on its way out and takes nothing new."""

    status, code, title = 503, "shutting_down", "The service is shutting down"


class NotReady(ServiceError):
    """The service is still starting, or its engine does not answer."""

    status, code, title = 503, "not_ready", "The service is not ready"


class DeadlineExceeded(ServiceError):
    """The answer did not come in time."""

    status, code, title = 504, "deadline_exceeded", "The answer took too long"
