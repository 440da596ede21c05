"""What a backend, a kernel and a plan promise. Third parties subclass these; see docs/adding-a-backend.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.operation import Features, Request
from ..core.profile import Curve, Curves, Estimate


class Plan:
    """A kernel made ready for one request. ``run`` may be called from several threads at once."""

    nbytes: int = 0
    # Where a device can take operands from the host, compute and bring the result back in one go (one submission):
    # a method like ``run`` on NumPy arrays, which counts what it moves. bfloat16 comes and goes as its bits in uint16.
    through_host: Callable[..., Any] | None = None

    def run(self, *arrays: Any) -> Any:
        """Compute. Operands come in the kernel's native array kind, on its device; the result stays there."""
        raise NotImplementedError

    def run_as(self, kind: str) -> Callable[..., Any] | None:
        """Return a way to run on arrays of another kind on the same device, with a result of that kind, or None.

        Where there is none, operands and results are viewed as the kernel's native kind and back.
        """
        return None

    def close(self) -> None:
        """Give back what the plan holds when it leaves the cache; a call in another thread may still be running it."""


class Kernel:
    """One way to run an operation on one device.

    Attributes
    ----------
    name : str
        Unique within the operation: what ``using(kernel=...)`` and ``explain`` say.
    operation : str
        Name of the operation.
    device : str
        Device that it runs on.
    native : str
        Array kind that its plans take and return.
    fuses_transfers : bool
        True where its plans have ``through_host``, so that transfers of host operands cost no latency of their own.
    libraries : tuple of str or None
        Which of the libraries that the backend's validators name its times depend on; None: all of them. What was
        measured stays valid while these have not changed, nor the machine.
    takes_host_scalars : bool
        Its plans read operands without axes that are on the host as they are, so that a number is not transferred.
    compiles : bool
        Most of its plans are compiled anew, which takes far longer than a run: ``adaptive profile`` measures it after
        the others, at fewer points.
    """

    name: str = ""
    operation: str = ""
    device: str = "cpu"
    native: str = "numpy"
    fuses_transfers: bool = False
    libraries: tuple[str, ...] | None = None
    takes_host_scalars: bool = False
    compiles: bool = False

    def stages(self, request: Request) -> int:
        """Return in how many pieces its plans move host operands and results, both ways at once; 1: one after another.

        Then a prediction counts the slower direction, and of the other one the piece that nothing is beside.
        """
        return 1

    def supports(self, request: Request) -> bool | str:
        """Return True, or the reason in words why this kernel cannot run the request."""
        raise NotImplementedError

    def plan(self, request: Request) -> Plan:
        """Return a plan; the place for all work that calls of one request can share."""
        raise NotImplementedError

    def features(self, request: Request) -> Features:
        """Return the request's place in this kernel's time model (by default the operation's own)."""
        return request.operation.features(request)

    def tells(self, request: Request) -> bool:
        """Tell whether measuring a sample says anything about requests other than this very one."""
        return True

    def estimate(self, request: Request, curves: Mapping[str, Curve]) -> Estimate | None:
        """Predict time and error from what the profile measured; None where nothing was.

        ``curves`` maps parameter classes to measured curves of this kernel. A kernel whose requests are made of
        several parts (an expression) overrides this and adds the parts up.
        """
        return (curves if isinstance(curves, Curves) else Curves(curves)).at(self.features(request))

    def __repr__(self) -> str:
        return f"<kernel {self.operation}/{self.name} on {self.device}>"


class Backend:
    """Devices, memory and kernels of one world.

    Attributes
    ----------
    name : str
    accepts : tuple of str
        Kinds of host arrays that ``upload`` takes as they are; others come as NumPy arrays.
    """

    name: str = ""
    accepts: tuple[str, ...] = ()

    def available(self) -> bool | str:
        """Return True, or the exact reason why this backend cannot be used here."""
        return True

    def remedy(self) -> str | None:
        """Return the command that would make the backend available, if there is one."""
        return None

    def steps(self) -> Sequence[str]:
        """Return what the command of ``remedy`` would run here, where that is worth showing: one command a line."""
        return ()

    def devices(self) -> Sequence[str]:
        """Return the names of the devices, for example ``["cuda:0", "cuda:1"]``."""
        raise NotImplementedError

    def kernels(self) -> Sequence[Kernel]:
        """Return every kernel, once for each device, in order of preference where nothing was measured."""
        raise NotImplementedError

    def validators(self, device: str) -> dict[str, str]:
        """Return what must be unchanged for a measurement on this device to stay valid."""
        raise NotImplementedError

    def facts(self, device: str) -> dict[str, str]:
        """Return what ``adaptive doctor`` shows of a device."""
        return self.validators(device)

    def memory(self, device: str) -> int | None:
        """Return the bytes of memory that the device has, or None where that cannot be told."""
        return None

    def software(self, device: str) -> bool:
        """Tell whether a device is the processor itself, behind another interface: it is measured last and least."""
        return False

    def tune(self, device: str, operations: Collection[str], budget: float) -> dict[str, Any]:
        """Search for the best values of what can be chosen for operations on a device, by measuring.

        ``adaptive profile`` calls this before it times the kernels, and keeps what comes back: names with a whole
        number, a text or a sequence of whole numbers each. ``budget`` is the time to stay within, in seconds.
        """
        return {}

    def apply(self, device: str, tuning: Mapping[str, Any]) -> None:
        """Use what ``tune`` found, now or when the profile in use was measured; what is not named has its default."""

    def kept(self, host: Any, device: str) -> Any:
        """Return the copy that a device has of an array marked as constant, which then is not moved again, or None."""
        return None

    def upload(self, host: np.ndarray, device: str) -> Any:
        """Copy a NumPy array to a device and return it in the backend's native kind."""
        raise NotImplementedError

    def download(self, array: Any) -> np.ndarray:
        """Copy a native array to the host."""
        raise NotImplementedError

    def view(self, array: Any, kind: str) -> Any:
        """Return an array of this backend as another of its kinds, over the same memory."""
        return array

    def across(self, array: Any, device: str) -> Any:
        """Copy an array to another device of this backend."""
        return self.upload(self.download(array), device)

    def release(self) -> None:
        """Give back memory that is kept for later calls; arrays and plans in use are not touched."""

    def synchronize(self, device: str) -> None:
        """Wait until everything asked of the device is done."""
