"""The prior of an answer: which one the operator chose, and those that requests name.

An engine answers under its training labels' prior. `training.model.prior` exchanges it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.config import SettingsError, key_of
from training.model.manifest import Manifest
from training.model.prior import POWERS, Adjustment, adjustment, named_prior, read_prior

CUSTOM: Final = "custom"
"""The kind of a prior that has no name."""


@dataclass(frozen=True, eq=False)
class Prior:
    """A prior that answers are under.

    Attributes:
        kind: Its name, or "custom"; one of few values, for metrics.
        text: Its name, or the share of each emotion, in the form that requests have.
        adjustment: Exchanges the training labels' prior for it.
    """

    kind: str
    text: str
    adjustment: Adjustment


class Priors:
    """The priors of a checkpoint; any thread may use them.

    Attributes:
        manifest: Of the checkpoint.
        default: The prior of requests that name none.
    """

    def __init__(self, manifest: Manifest, setting: str = "auto") -> None:
        """Prepare the priors that have a name.

        Args:
            manifest: Of the checkpoint.
            setting: FER_PRIOR. "auto" is "balanced" where the checkpoint states its labels' prior,
                else "training".

        Raises:
            SettingsError: The setting does not fit the checkpoint.
        """
        self.manifest = manifest
        self._named = _named(manifest)
        text = ("balanced" if manifest.prior else "training") if setting == "auto" else setting
        try:
            self.default = self.read(text)
        except ValueError as error:
            raise SettingsError(f"{key_of('prior')} is {text!r}, but {error}") from None

    def read(self, text: str) -> Prior:
        """Return the prior that a request names.

        Args:
            text: "uniform", "training", "balanced", or "emotion:share,...".

        Raises:
            ValueError: Says what is wrong, in words for the client.
        """
        if text in self._named:
            return self._named[text]
        shares = read_prior(text, self.manifest)
        pairs = zip(self.manifest.emotions, shares, strict=True)
        spelt = ",".join(f"{emotion}:{share:.6g}" for emotion, share in pairs)
        return Prior(CUSTOM, spelt, adjustment(self.manifest, shares))


def _named(manifest: Manifest) -> Mapping[str, Prior]:
    """Return the priors with a name; only "training" where the checkpoint does not state it."""
    if manifest.prior is None:
        unchanged = Adjustment(1.0, np.zeros(len(manifest.emotions), np.float32))
        return {"training": Prior("training", "training", unchanged)}
    shares = {name: named_prior(manifest.prior, name) for name in POWERS}
    return {name: Prior(name, name, adjustment(manifest, prior)) for name, prior in shares.items()}
