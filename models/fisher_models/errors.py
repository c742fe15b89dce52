"""The errors of fisher_models.

ModelError
├── BundleError      a bundle is missing, damaged, or of an unknown kind
├── CheckpointError  a published checkpoint cannot be fetched, read or understood
├── SignalError      a signal that the model cannot see: too short, too slowly sampled, not finite
├── RecordingError   a recording, its manifest or a set of reference vectors cannot be read
└── TrainingError    a pre-training run cannot be configured, resumed or finished
"""


class ModelError(Exception):
    """Anything fisher_models raises on purpose; the message says what, which and what to do."""


class BundleError(ModelError):
    """A bundle cannot be found, read, trusted or written."""


class CheckpointError(ModelError):
    """A checkpoint cannot be had, is damaged, wants to run code, or is of no model that is known here."""


class SignalError(ModelError):
    """A waveform cannot be turned into bands."""


class RecordingError(ModelError):
    """A file of samples cannot be read as what it should be."""


class TrainingError(ModelError):
    """A pre-training run's configuration, checkpoint or device is not as it must be."""
