"""Every error this library raises on purpose.

Each one derives from `EcavatarError` and from the builtin it specialises, so a caller may catch either.
A message says what was expected, what was seen and what to do next. Command lines turn an `EcavatarError` into
exit code 2 without a traceback; any other exception is a bug (exit code 1).
"""


class EcavatarError(Exception):
    """Base of all errors that name a mistake in what was asked or given."""


class ConfigError(EcavatarError, ValueError):
    """params.yaml or a command line option is wrong."""


class ShapeError(EcavatarError, ValueError):
    """An array has the wrong shape, dtype or length."""


class DataError(EcavatarError, ValueError):
    """A file or record of a dataset is not what its format promises."""


class TopologyError(EcavatarError, ValueError):
    """Vertices of two topologies were mixed."""


class BasisError(EcavatarError, ValueError):
    """Coefficients of two bases were mixed."""


class SplitLeakError(EcavatarError, ValueError):
    """A subject or image would appear on both sides of a split."""


class AssetMissingError(EcavatarError, FileNotFoundError):
    """A file the user has to supply, or an earlier stage has to make, is not there."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingDependencyError(EcavatarError, ImportError):
    """An optional package or system program is needed and not installed."""


class TrainingError(EcavatarError, RuntimeError):
    """Training cannot go on, for instance because a loss is not finite."""
