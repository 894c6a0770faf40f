"""Settings of the shop; TASKS is what matters here."""

import json
import os

SECRET_KEY = "an example's"  # noqa: S105  it guards nothing
DEBUG = True
USE_TZ = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["jobmill.contrib.django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}

TASKS = {
    "default": {
        "BACKEND": "jobmill.contrib.django.JobmillBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": {
            "url": "sqlite:///jobs.db",
            "transaction": "on_commit",  # what is rolled back sends no receipt
            "job": {"timeout": 30},
        },
    }
}

# Another database and other options, as a deployment has them.
if "SHOP_DATABASE" in os.environ:
    DATABASES["default"] = json.loads(os.environ["SHOP_DATABASE"])
if "SHOP_OPTIONS" in os.environ:
    TASKS["default"]["OPTIONS"] = json.loads(os.environ["SHOP_OPTIONS"])
