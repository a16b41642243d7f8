"""Django's command line for the example.

python manage.py leveret_worker     one terminal
python manage.py runserver          another; then: curl -d '[1.5, 2]' localhost:8000/orders
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
