"""The application that Celery's worker loads; its port of Redis is in the environment."""

import os

from queues import celery_app

app = celery_app(os.environ["REDIS_PORT"])
