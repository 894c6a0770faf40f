"""A shop that sends receipts in the background, by Django's own tasks (Django 6, Python 3.12).

python manage.py migrate
python manage.py runserver             # then: curl -X POST localhost:8000/orders/ada
python manage.py jobmill worker        # in another terminal
python manage.py jobmill jobs list
"""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
