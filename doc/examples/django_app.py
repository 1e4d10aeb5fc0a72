"""The same on Django, in one file: ``python django_app.py runserver --noreload``."""

import atexit
import json
import sys

import django
from django.conf import settings as django_settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from purchases import keep, submission_id_of, verdicts_of

from receipt_actors import ReceiptSystem
from receipt_actors.errors import QueueUnavailable, SubmissionRefused
from receipt_actors.settings import load_settings

django_settings.configure(ROOT_URLCONF=__name__, WSGI_APPLICATION=f"{__name__}.application", ALLOWED_HOSTS=["*"])
django.setup()


def submit(request: HttpRequest) -> JsonResponse:
    """Take a receipt. 202: it will be answered; nothing is lost from here on."""
    body = json.loads(request.body)
    receipt, user_id = body["receipt"], body["user_id"]
    try:
        pending = system.submit(receipt, user_id, submission_id=submission_id_of(receipt, user_id))
    except SubmissionRefused as error:
        return JsonResponse({"error": str(error)}, status=400)
    except QueueUnavailable:
        return JsonResponse({"error": "try again"}, status=503)
    return JsonResponse({"submission_id": pending.submission_id}, status=202)


def verdicts(request: HttpRequest, submission_id: str) -> JsonResponse:
    """Tell the verdicts; 404 while there is none."""
    found = verdicts_of(submission_id)
    return JsonResponse(found, safe=False) if found else JsonResponse({"error": "not answered yet"}, status=404)


# The caller is an app with a session of its own, not a page: no CSRF token.
urlpatterns = [path("purchases", csrf_exempt(submit)), path("purchases/<submission_id>", verdicts)]

# In a project of several files these three lines stand in ``wsgi.py``: ``AppConfig.ready`` is called by every
# management command as well, ``migrate`` among them.
application = get_wsgi_application()
system = ReceiptSystem.start(load_settings({}), on_result=keep)
atexit.register(system.drain)

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
