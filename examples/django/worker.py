"""The site's tasks, for `leveret worker worker:app`: processes instead of `leveret_worker`'s threads."""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

try:
    from django.tasks import default_task_backend
except ImportError:
    from django_tasks import default_task_backend

app = default_task_backend.worker_app()
