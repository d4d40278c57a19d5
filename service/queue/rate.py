"""How fast the engine serves, as measured, and what follows from it for those who wait."""

_KEEP = 0.9  # what a batch's weight shrinks to with each later batch: the last ten or so count
# The rate is a mean: without it, of those admitted at the edge every second one would be late. At
# three times capacity and batch times spread by 30 % one in thirty is with 1.15, one in 150 with
# 1.25, at the same goodput.
_HEADROOM = 1.25
_UNMEASURED_RETRY_S = 1.0
_MAX_RETRY_S = 60.0


class ServiceRate:
    """Faces a second over the latest batches; for one thread, the event loop's.

    Decayed sums instead of a mean of rates: a batch counts by the time it took, so that a rate
    learnt from faces served alone gives way as soon as full batches run.
    """

    def __init__(self) -> None:
        """Begin without a measurement."""
        self._batches = 0.0
        self._faces = 0.0
        self._seconds = 0.0

    def observe(self, faces: int, seconds: float) -> None:
        """Add a batch that the engine served.

        Args:
            faces: Its size, 1 or more.
            seconds: What it took.
        """
        self._batches = self._batches * _KEEP + 1.0
        self._faces = self._faces * _KEEP + faces
        self._seconds = self._seconds * _KEEP + seconds

    def predicted_s(self, ahead: int, count: int) -> float:
        """Predict when new faces would be answered.

        Args:
            ahead: Faces that wait or run already.
            count: The new ones.

        Returns:
            Seconds from now, with some headroom: the wait, and a batch that the last of them shares
            with whoever comes after.
            0 before the first measurement and where nothing is ahead: a face that is served at
            once is how a rate that was wrong gets corrected.
        """
        if not ahead or not self._seconds:
            return 0.0
        second_per_face = self._seconds / self._faces
        before_last_s = (ahead + count - 1) * second_per_face
        return _HEADROOM * (before_last_s + self._seconds / self._batches)

    def retry_after_s(self, ahead: int) -> float:
        """Say when those who wait now will have been served.

        Args:
            ahead: Faces that wait or run.

        Returns:
            Seconds, at most a minute; a second before the first measurement.
        """
        if not self._seconds:
            return _UNMEASURED_RETRY_S
        return min(ahead * self._seconds / self._faces, _MAX_RETRY_S)
