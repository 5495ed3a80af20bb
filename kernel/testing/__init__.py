"""What services and plugins are tested with."""

from __future__ import annotations

from ._cancel import cancel_at_checkpoint as cancel_at_checkpoint
from ._cancel import cancel_at_each_checkpoint as cancel_at_each_checkpoint
from ._check_broker import check_broker as check_broker
from ._check_dispatcher import Feed as Feed
from ._check_dispatcher import check_dispatcher as check_dispatcher
from ._check_driver import check_driver as check_driver
from ._check_protocol import check_protocol as check_protocol
from ._check_worker import check_worker as check_worker
from ._context import fake_context as fake_context
from ._faults import Faults as Faults
from ._faults import Stall as Stall
from ._faults import faulty as faulty
from ._intake import RecordingIntake as RecordingIntake
from ._intake import Settled as Settled
from ._intake import acknowledge as acknowledge
from ._intake import open_intake as open_intake
from ._leaks import no_leaks as no_leaks
from ._leaks import no_task_leaks as no_task_leaks
from ._open import OpenKernel as OpenKernel
from ._open import open_kernel as open_kernel
