"""Settings of the example: a SQLite file for Django's models, and another for Leveret's jobs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

DATA = Path(os.environ.get("SHOP_DATA", Path(__file__).resolve().parent.parent))
SECRET_KEY = "for the example alone"  # noqa: S105 - it guards nothing
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
USE_TZ = True
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "shop.db"}}
INSTALLED_APPS = ["shop"]
if importlib.util.find_spec("django.tasks") is None:
    INSTALLED_APPS.append("django_tasks")
TASKS = {
    "default": {
        "BACKEND": "leveret_backend.LeveretBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"url": f"sqlite:///{DATA}/jobs.db"},
    }
}
