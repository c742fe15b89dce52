"""The errors of fisher_models.

ModelError
├── BundleError      a bundle is missing, damaged, or of an unknown kind
├── SignalError      a signal that the model cannot see: too short, too slowly sampled, not finite
└── RecordingError   a recording, its manifest or a set of reference vectors cannot be read
"""


class ModelError(Exception):
    """Anything fisher_models raises on purpose; the message says what, which and what to do."""


class BundleError(ModelError):
    """A bundle cannot be found, read, trusted or written."""


class SignalError(ModelError):
    """A waveform cannot be turned into bands."""


class RecordingError(ModelError):
    """A file of samples cannot be read as what it should be."""
