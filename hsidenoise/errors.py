"""Every error and warning hsidenoise raises on purpose.

::

    HSIDenoiseError                 exit code 1
    ├── UsageError (ValueError)                 2   the command asks for something impossible
    │   ├── OutputExistsError (FileExistsError) 2   refused to overwrite
    │   └── DeviceError (RuntimeError)          2   the device asked for is not there
    ├── ReadError (OSError)                     1   an input cannot be read
    │   └── UnsupportedError                    1   readable, but not a raster hsidenoise can give back
    ├── SceneTooLargeError (MemoryError)        1   a header announces more than the machine can hold
    ├── WriteError (OSError)                    1   an output cannot be written
    ├── WeightsError (ValueError)               1   weights missing, damaged or of another kind
    └── TrainingError (ValueError)              1   training data or a checkpoint is unusable

    HSIDenoiseWarning (UserWarning)
    ├── MetadataWarning                 something in the input was dropped or repaired
    │   └── GuessedUnitsWarning         wavelengths carry no unit; one was inferred
    └── NotConvergedWarning             tiles stopped before the fixed point

Only the command line catches them: one line on stderr, then the exit code.
"""


_LONGEST = 900


def printable(text: str) -> str:
    """One line for a terminal: file names and damaged files may hold control characters, which could command it."""
    return "".join(c if c.isprintable() else " " for c in text)


def _line(text: str) -> str:
    shown = printable(text)  # damaged files may hold pages of text, too
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST * 2 // 3]} ... {shown[-_LONGEST // 3 :]}"


class HSIDenoiseError(Exception):
    """Root of all deliberate failures; the message is one line that names file, fault and way out."""

    exit_code = 1

    def __str__(self) -> str:
        """The message, fit to be printed."""
        return _line(super().__str__())


class UsageError(HSIDenoiseError, ValueError):
    """The options cannot be honoured."""

    exit_code = 2


class OutputExistsError(UsageError, FileExistsError):
    """An output is already there and ``--overwrite`` was not given."""


class DeviceError(UsageError, RuntimeError):
    """The device asked for does not exist on this machine."""


class ReadError(HSIDenoiseError, OSError):
    """An input is missing, damaged, truncated, or not what its name says."""


class UnsupportedError(ReadError):
    """An input is intact but holds no raster that can be denoised and given back."""


class SceneTooLargeError(HSIDenoiseError, MemoryError):
    """The scene's header announces more data than can be processed here."""


class WriteError(HSIDenoiseError, OSError):
    """An output cannot be written completely; nothing is left under its name."""


class WeightsError(HSIDenoiseError, ValueError):
    """A weight file is missing, damaged, or does not fit the network."""


class TrainingError(HSIDenoiseError, ValueError):
    """Training data or a checkpoint cannot be used."""


class HSIDenoiseWarning(UserWarning):
    """Root of all warnings."""

    def __str__(self) -> str:
        """The message, fit to be printed."""
        return _line(super().__str__())


class MetadataWarning(HSIDenoiseWarning):
    """Something in the input's metadata was repaired or cannot be carried over."""


class GuessedUnitsWarning(MetadataWarning):
    """The wavelengths carry no usable unit; one was inferred from their size."""


class NoiseKindWarning(HSIDenoiseWarning):
    """The scene's noise is likely of a kind that no model here is made for."""


class NotConvergedWarning(HSIDenoiseWarning):
    """Some tiles stopped at the evaluation limit before reaching the fixed point."""
