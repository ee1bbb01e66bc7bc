"""Networks that predict listening scores from a recording alone. They are predictions, and reports call them so.

DNSMOS (Reddy et al. 2022, P.835 and P.808 models) comes with the package ``speechmos`` and works offline. It was
trained on noisy speech before and after noise suppression, not on codecs.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

from speechtok.audio import Audio
from speechtok.bench.metrics import RATE, Score
from speechtok.errors import ConfigError

DNSMOS = "dnsmos"
PREDICTORS = (DNSMOS,)
PREDICTED = "predicted"
"""The kind of fact that holds all scores of a predictor: it hears the recording once for them."""
DNSMOS_SCORES = {
    "dnsmos_overall": "ovrl_mos",
    "dnsmos_signal": "sig_mos",
    "dnsmos_background": "bak_mos",
    "dnsmos_p808": "p808_mos",
}
"""Names of the measures, and what the package calls them."""


def dnsmos(audio: Audio) -> dict[str, Score]:
    """Predicted scores from 1 to 5, at 16 kHz; recordings below 9.01 s are repeated up to that, as the package does.

    Samples beyond full scale are cut, as a file of whole numbers would cut them. Silence has no score.

    Raises:
        ConfigError: the package is missing.
    """
    samples = np.clip(audio.resample(RATE).samples, -1, 1)
    if not np.any(samples):
        return {name: Score(name, None, "the recording is silent") for name in DNSMOS_SCORES}
    found = _package().run(samples, RATE)
    return {name: Score(name, float(found[theirs])) for name, theirs in DNSMOS_SCORES.items()}


def _package() -> ModuleType:
    try:
        return importlib.import_module("speechmos.dnsmos")
    except ImportError as error:
        raise ConfigError(f"DNSMOS needs {error.name}; pip install 'speechtok[predictors]'") from error
