"""What a game keeps of its own: purchases and coins, in its own database. The web applications beside this file use it.

Answers come at least once, in any order, and Apple may change its mind: a refund, a part of one, its reversal. So an
answer is not "credit" or "debit": it says what a purchase is worth. ``keep`` notes that, and moves the player's coins
by the difference to what it had noted before. An answer that comes twice, or too late, changes nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from receipt_actors.domain.messages import PostedResult, Verdict

DATABASE = Path("game.db")
COINS = {"coins_100": 100, "coins_500": 500, "coins_2500": 2500}  # a product that is missing here raises: see ``keep``
WHOLE = 100_000  # a refund of all, in Apple's thousandths of a percent


def submission_id_of(receipt: str, user_id: int) -> str:
    """Name the submission by what is asked: a client that sends its purchase again asks the same, and gets the same."""
    return hashlib.sha256(f"{user_id} {receipt}".encode()).hexdigest()


def order_of(result: PostedResult) -> tuple[int, int]:
    """Order the answers on one purchase: the greatest holds, in whatever order they come.

    Refunds and reversals have the time at which Apple decided; the first verdict has none, and is older than they are.
    At one time an OK holds, else the refund that takes back more.
    """
    percentage = WHOLE if result.revocation_percentage is None else result.revocation_percentage
    return result.decided_at_ms or 0, WHOLE + 1 if result.status is Verdict.OK else percentage


def coins_of(result: PostedResult) -> int:
    """Say what the purchase is worth, says this answer."""
    takes_ok_back = result.status is Verdict.INVALID and result.decided_at_ms is not None
    if result.status is Verdict.INVALID and not takes_ok_back:
        return 0  # it never was this player's
    assert result.product_id is not None
    bought = COINS[result.product_id] * (result.quantity or 1)
    taken_back = order_of(result)[1] if takes_ok_back else 0
    return bought - (bought * taken_back + WHOLE // 2) // WHOLE  # to the nearest: 33.333 % of three is one


def keep(result: PostedResult) -> None:
    """Note an answer, and credit or debit what it changes. For ``on_result``: where it raises, the answer comes again.

    One transaction does both, so a crash leaves neither or both behind, and the answer is deleted only afterwards.
    """
    purchase = (result.submission_id, result.transaction_id)
    with closing(connect()) as database, database:
        database.execute("BEGIN IMMEDIATE")  # one at a time; elsewhere SELECT ... FOR UPDATE, or SERIALIZABLE
        select = "SELECT decided_at, precedence, coins FROM purchases WHERE (submission_id, transaction_id) = (?, ?)"
        *order, coins = database.execute(select, purchase).fetchone() or (-1, -1, 0)
        if order_of(result) <= tuple(order):
            return
        now = (*purchase, result.user_id, result.status, *order_of(result), coins_of(result))
        database.execute("REPLACE INTO purchases VALUES (?, ?, ?, ?, ?, ?, ?)", now)
        database.execute(
            "INSERT INTO wallets VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET coins = coins + excluded.coins",
            (result.user_id, coins_of(result) - coins),  # below zero: the player has spent what was refunded since
        )


def verdicts_of(submission_id: str) -> list[dict[str, str]]:
    """Read what holds so far: one verdict for each transaction of the receipt."""
    with closing(connect()) as database:
        rows = database.execute(
            "SELECT transaction_id, status FROM purchases WHERE submission_id = ?", (submission_id,)
        ).fetchall()
    return [{"transaction_id": transaction_id, "status": status} for transaction_id, status in rows]


def coins_of_player(user_id: int) -> int:
    """Read what a player has."""
    with closing(connect()) as database:
        row = database.execute("SELECT coins FROM wallets WHERE user_id = ?", (user_id,)).fetchone()
    return 0 if row is None else int(row[0])


def connect() -> sqlite3.Connection:
    """Open the game's database; a real one has its tables from the beginning."""
    database = sqlite3.connect(DATABASE)
    database.execute(
        "CREATE TABLE IF NOT EXISTS purchases (submission_id TEXT NOT NULL, transaction_id TEXT NOT NULL,"
        " user_id INTEGER, status TEXT, decided_at INTEGER, precedence INTEGER, coins INTEGER,"
        " PRIMARY KEY (submission_id, transaction_id))"
    )
    database.execute("CREATE TABLE IF NOT EXISTS wallets (user_id INTEGER PRIMARY KEY, coins INTEGER NOT NULL)")
    return database
