"""The thread that makes and delivers checkpoints, in every process that has the log open."""

import logging
import threading

from django.conf import settings
from django.db import connections
from django.db.utils import Error as DatabaseError

from apps.audit.services.checkpoints import (
    configured_keys,
    configured_targets,
    deliver,
    make_checkpoint,
    overview,
    prune_checkpoints,
)
from apps.common.clock import monotonic
from apps.common.ids import new_id

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 5.0
_PRUNE_SECONDS = 3_600.0
_LAST_SECONDS = 3.0
"""Limit of the deliveries at the end."""


class CheckpointThread(threading.Thread):
    """Looks every few seconds whether a checkpoint is due and whether a place waits for one."""

    def __init__(self) -> None:
        super().__init__(name="audit-checkpoints", daemon=True)
        self._keys, self._targets = configured_keys(), configured_targets()
        self._seconds: float = settings.SWITCHYARD.checkpoint_seconds
        self._holder = str(new_id())
        self._stopping = threading.Event()
        self.degraded = ""
        """What is wrong with the checkpoints, for `/health/ready` and people; empty when nothing is."""

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread with what it has under way, then sign the heads a last time and deliver; at most about 5 s.

        What a place that hangs has not taken by then is delivered by the next process.
        """
        self._stopping.set()
        self.join(timeout)
        if self.is_alive():
            return
        last = threading.Thread(target=self._finish, name="audit-last-checkpoint", daemon=True)
        last.start()
        last.join(_LAST_SECONDS)

    def _finish(self) -> None:
        try:
            make_checkpoint(self._keys)
            deliver(self._targets, self._holder, seconds=_LAST_SECONDS)
        except DatabaseError as error:
            _log.warning("there is no last checkpoint: %s", error)
        finally:
            _let_go()

    def run(self) -> None:
        """Work until stopped; whatever fails is tried again."""
        look = min(_LOOK_SECONDS, self._seconds / 4)
        pruned = monotonic()
        while not self._stopping.wait(look):
            try:
                make_checkpoint(self._keys, older_than=self._seconds)
                if self._targets:
                    deliver(self._targets, self._holder)
                self.degraded = overview().degraded
                if monotonic() - pruned > _PRUNE_SECONDS:
                    pruned = monotonic()
                    prune_checkpoints()
            except DatabaseError as error:
                self.degraded = "checkpoints wait for the database"
                _log.warning("checkpoints have to wait: %s", error)
            finally:
                _let_go()


def _let_go() -> None:
    for alias in {"default", settings.AUDIT_DATABASE}:
        connections[alias].close()
