"""A Celery broker in the Django database: `switchyard-db://`.

For one machine: an enqueued task joins the transaction of whoever enqueues it, and survives `kill -9`. No fan-out, hence no
remote control of workers.
"""

from kombu.transport import TRANSPORT_ALIASES

SCHEME = "switchyard-db"

TRANSPORT_ALIASES[SCHEME] = "apps.common.queue.transport:Transport"
