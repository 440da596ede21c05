"""Learn from real calls which kernel is quicker: ``using(learn=True)``, off by default.

A profile is measured on other sizes and at another time. While learning is on, each call whose result is on the host is
timed, and after every ``WINDOW`` calls of one request the chosen kernel's latest times are compared with what is known
of the others: where another one should be quicker by ``LEAD``, the request is decided anew. Nothing runs that the
caller did not ask for: what the others take is what the profile predicts, or what they took when they were chosen.

An estimate is made of the latest window alone, so that a kernel that has become slow loses, and it is forgotten after
``TRUSTED`` windows of another kernel, so that one that was disturbed may win again. What is kept is bounded by ``MOST``
requests and ends with the process: the profile's file is not changed. The clock stops before anything is worked out.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .operation import Request
from .timing import typical

if TYPE_CHECKING:
    from .decision import Candidate, Decision

WINDOW = 16  # latest calls that an estimate is made of
LEAD = 1.1  # by which another kernel must be ahead
TRUSTED = 64  # windows of other kernels after which a kernel's estimate says nothing any more
MOST = 1024  # requests that something is kept of

Key = tuple[str, str]  # kernel and device


@dataclass
class _Known:
    """What was seen of one request: the windows so far, and of each kernel its time and the window it is from."""

    windows: int = 0
    seconds: dict[Key, tuple[float, int]] = field(default_factory=dict)


class Learning:
    """What real calls took, by request and kernel."""

    def __init__(self) -> None:
        self._known: OrderedDict[Request, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()

    def seconds(self, request: Request, kernel: str, device: str) -> float | None:
        """Return what a kernel's latest calls of a request took, transfers included; None where that is not known."""
        known = self._known.get(request)
        found = known.seconds.get((kernel, device)) if known is not None else None
        return None if known is None or found is None or known.windows - found[1] > TRUSTED else found[0]

    def watched(
        self, call: Callable[..., Any], request: Request, decision: Decision, again: Callable[[], None]
    ) -> Callable[..., Any]:
        """Wrap a call so that it is timed; ``again`` is called where its request should be decided anew."""
        if decision.chosen.device != "cpu" and request.first.device != "cpu":
            return call  # it returns before the device is done: its time says nothing
        samples: list[float] = []
        clock = time.perf_counter

        def timed(*arrays: Any) -> Any:
            start = clock()
            result = call(*arrays)
            samples.append(clock() - start)
            if len(samples) >= WINDOW:
                window = samples[:WINDOW]
                del samples[:WINDOW]
                if self._learned(window, request, decision):
                    again()
            return result

        return timed

    def _learned(self, window: list[float], request: Request, decision: Decision) -> bool:
        """Keep what a window says of the chosen kernel; tell whether another one should be quicker."""
        chosen = decision.chosen
        own = typical(window)[0]
        with self._lock:
            known = self._known.setdefault(request, _Known())
            self._known.move_to_end(request)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
            known.windows += 1
            known.seconds[chosen.name, chosen.device] = own, known.windows
        others = [self._total(request, candidate) for candidate in decision.candidates if candidate is not chosen]
        return any(other is not None and other * LEAD < own for other in others)

    def _total(self, request: Request, candidate: Candidate) -> float | None:
        seen = self.seconds(request, candidate.name, candidate.device)
        return candidate.total_s if seen is None else seen
