"""The errors of a request: status, stable code, and a message that is safe to send.

A message says what was wrong and what to do, in the service's own words: it never contains a path,
a library's message or content of the picture.
"""

# No suffix "Error": each is an answer to a client, not a defect of the program.
# ruff: noqa: N818

from typing import ClassVar


class ServiceError(Exception):
    """A failure that is reported to the client.

    Attributes:
        status: HTTP status.
        code: Stable name for programs; also the metrics' label of rejections.
        title: Describes this kind of failure, always the same text (RFC 9457).
        detail: What was wrong this time and what to do.
        retry_after_s: After how many seconds to retry; None if a retry makes no sense.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        """Create the error with its detail."""
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class NoImage(ServiceError):
    """No picture was sent, or an empty one."""

    status, code, title = 400, "no_image", "No image was sent"


class BadRequest(ServiceError):
    """The request itself is malformed: a broken form, a parameter out of range."""

    status, code, title = 400, "bad_request", "The request is malformed"


class BadImage(ServiceError):
    """The bytes are no valid picture."""

    status, code, title = 400, "bad_image", "The image cannot be read"


class Unauthorized(ServiceError):
    """No API key, or a wrong one."""

    status, code, title = 401, "unauthorized", "A key is needed"


class NotFound(ServiceError):
    """The path does not exist."""

    status, code, title = 404, "not_found", "There is nothing at this path"


class MethodNotAllowed(ServiceError):
    """The path exists, but does not support the method."""

    status, code, title = 405, "method_not_allowed", "The method is not allowed at this path"


class UploadTimeout(ServiceError):
    """The request's body did not arrive in time."""

    status, code, title = 408, "upload_timeout", "The upload took too long"


class ImageTooLarge(ServiceError):
    """The picture has more bytes than the limit."""

    status, code, title = 413, "image_too_large", "The image has too many bytes"


class RequestTooLarge(ServiceError):
    """The pictures of a request together have more bytes than the limit."""

    status, code, title = 413, "request_too_large", "The request has too many bytes"


class TooManyPixels(ServiceError):
    """The picture has too many pixels, or decoding it takes too much memory or time."""

    status, code, title = 413, "too_many_pixels", "The image has too many pixels"


class TooManyImages(ServiceError):
    """The request has more pictures than the limit."""

    status, code, title = 413, "too_many_images", "The request has too many images"


class UnsupportedType(ServiceError):
    """The service does not read this content type or picture format."""

    status, code, title = 415, "unsupported_type", "This type of content is not supported"


class HeadersTooLarge(ServiceError):
    """The request has more or larger headers than the limit."""

    status, code, title = 431, "headers_too_large", "The request's headers are too large"


class InferenceFailed(ServiceError):
    """The network failed on this face only."""

    status, code, title = 500, "inference_failed", "The face could not be classified"


class InternalError(ServiceError):
    """An unexpected error, which is logged."""

    status, code, title = 500, "internal_error", "The service failed"


class NoDetector(ServiceError):
    """A search for faces was requested, but the service has no detector."""

    status, code = 501, "no_detector"
    title = "No face detector"


class UnsupportedCoding(ServiceError):
    """The service does not read this transfer coding."""

    status, code = 501, "unsupported_coding"
    title = "This transfer coding is not supported"


class QueueFull(ServiceError):
    """The queue, or the memory for uploads, is full."""

    status, code, title = 503, "queue_full", "The service is at its limit"


class Overloaded(ServiceError):
    """The predicted wait exceeds the deadline."""

    status, code, title = 503, "overloaded", "The service could not answer in time"


class OutOfMemory(ServiceError):
    """The process cannot allocate memory for this picture at present."""

    status, code, title = 503, "out_of_memory", "The service is short of memory"


class TooManyConnections(ServiceError):
    """The service has reached its limit of connections."""

    status, code, title = 503, "too_many_connections", "The service is at its limit of connections"


class ShuttingDown(ServiceError):
    """The service is shutting down and accepts nothing new."""

    status, code, title = 503, "shutting_down", "The service is shutting down"


class NotReady(ServiceError):
    """The service is still starting, or its engine does not answer."""

    status, code, title = 503, "not_ready", "The service is not ready"


class DeadlineExceeded(ServiceError):
    """The answer did not come in time."""

    status, code, title = 504, "deadline_exceeded", "The answer took too long"
