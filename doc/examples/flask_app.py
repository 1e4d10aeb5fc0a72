"""A Flask application that validates purchases itself: POST a receipt, then GET what became of it."""

import atexit

from flask import Flask, request
from flask.typing import ResponseReturnValue
from purchases import keep, submission_id_of, verdicts_of

from receipt_actors import ReceiptSystem
from receipt_actors.errors import QueueUnavailable, SubmissionRefused
from receipt_actors.settings import load_settings

app = Flask(__name__)
system = ReceiptSystem.start(load_settings({}), on_result=keep)  # settings from the environment
atexit.register(system.drain)


@app.post("/purchases")
def submit() -> ResponseReturnValue:
    """Take a receipt. 202: it will be answered; nothing is lost from here on."""
    body = request.get_json()
    receipt, user_id = body["receipt"], body["user_id"]  # a real game takes the user from its session
    try:
        pending = system.submit(receipt, user_id, submission_id=submission_id_of(receipt, user_id))
    except SubmissionRefused as error:
        return {"error": str(error)}, 400
    except QueueUnavailable:
        return {"error": "try again"}, 503
    return {"submission_id": pending.submission_id}, 202


@app.get("/purchases/<submission_id>")
def verdicts(submission_id: str) -> ResponseReturnValue:
    """Tell the verdicts; 404 while there is none."""
    found = verdicts_of(submission_id)
    return found or ({"error": "not answered yet"}, 404)
