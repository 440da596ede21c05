"""Every error and warning that this library raises, under one root."""

from __future__ import annotations


class AdaptiveError(Exception):
    """Root of every error raised by adaptive-compute."""


class ArgumentError(AdaptiveError, ValueError):
    """An argument has the right type but an unacceptable value."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument is of a type that is not accepted."""


class ShapeError(ArgumentError):
    """An array's shape does not fit the operation or the other operands."""


class AxisError(ShapeError, IndexError):
    """An array has no such axis."""


class DtypeError(AdaptiveError, TypeError):
    """An array's dtype is not one that the operation computes in."""


class ExpressionError(ArgumentError):
    """An expression has a syntax error, an unknown name or a call that is not allowed."""


class NufftError(ArgumentError, RuntimeError):
    """Bad input to a NUFFT; both kinds of error that FINUFFT's users catch."""


class NufftTypeError(NufftError, DtypeError):
    """An argument of a NUFFT has a type or dtype that is not accepted."""


class TooLargeError(AdaptiveError, MemoryError, ValueError):
    """The result could not fit this machine's memory; raised before anything is allocated."""


class BackendUnavailable(AdaptiveError, RuntimeError):
    """A backend or device was asked for that this machine cannot offer."""


class NoKernelError(AdaptiveError, RuntimeError):
    """No kernel runs the request; the message gives every kernel's reason."""


class ToleranceError(NoKernelError):
    """No kernel is as exact as was asked; the message names the most exact one and its error."""


class TransferDenied(AdaptiveError, RuntimeError):
    """The request needs a transfer between devices that ``transfers=`` does not permit."""


class ProfileError(AdaptiveError, RuntimeError):
    """A profile could not be read or written."""


class MissingProfileError(ProfileError):
    """There is no profile where one was looked for."""


class DeviceError(AdaptiveError, RuntimeError):
    """A device failed while running; the dispatcher hands over to the next candidate."""


class DeviceOutOfMemory(DeviceError, MemoryError):
    """The device has no room for the request."""


class DeviceLost(DeviceError):
    """The device stopped answering; it is set aside for the rest of the process."""


class AdaptiveWarning(UserWarning):
    """Root of every warning given by adaptive-compute."""


class NoProfileWarning(AdaptiveWarning):
    """Calls are not routed by measurement, because this machine has no profile."""


class SetAsideWarning(AdaptiveWarning):
    """A kernel failed and the next candidate ran instead."""


class PrecisionWarning(AdaptiveWarning):
    """A call under ``precision="adaptive"`` ran in its operands' own precision, because its data needs it."""


class SettingsWarning(AdaptiveWarning):
    """An ``ADAPTIVE_...`` environment variable has a name that nothing reads."""


class NufftWarning(AdaptiveWarning):
    """A NUFFT runs, but not as precisely as was asked."""


class UntraceableWarning(AdaptiveWarning):
    """A function could not be traced to an expression and runs under ``torch.vmap``."""


class TransferWarning(AdaptiveWarning):
    """A transfer happened while ``transfers="log"`` was set."""
