"""What a game keeps of its own: the verdicts, in its own database. The web applications beside this file use it."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from receipt_actors.domain.results import PostedResult

DATABASE = Path("game.db")


def submission_id_of(receipt: str, user_id: int) -> str:
    """Name the submission by what is asked: a client that sends its purchase again asks the same, and gets the same."""
    return hashlib.sha256(f"{user_id} {receipt}".encode()).hexdigest()


def connect() -> sqlite3.Connection:
    """Open the game's database; a real one has its tables from the beginning."""
    database = sqlite3.connect(DATABASE)
    database.execute(
        "CREATE TABLE IF NOT EXISTS verdicts (submission_id TEXT, transaction_id TEXT, user_id INTEGER, status TEXT,"
        " PRIMARY KEY (submission_id, transaction_id))"
    )
    return database


def keep(result: PostedResult) -> None:
    """Write a verdict down. It may come more than once, so writing it twice must be as good as once."""
    row = (result.submission_id, result.transaction_id, result.user_id, result.status)
    with closing(connect()) as database, database:
        database.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?)", row)  # here coins are credited, too


def verdicts_of(submission_id: str) -> list[dict[str, str]]:
    """Read what has been written down so far: one verdict for each transaction of the receipt."""
    with closing(connect()) as database:
        rows = database.execute(
            "SELECT transaction_id, status FROM verdicts WHERE submission_id = ?", (submission_id,)
        ).fetchall()
    return [{"transaction_id": transaction_id, "status": status} for transaction_id, status in rows]
