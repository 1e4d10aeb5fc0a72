"""Submit the purchase of the tutorial for two users, with settings from the environment."""

from pathlib import Path

from receipt_actors import ReceiptSystem
from receipt_actors.settings import load_settings

purchase = Path("purchase.txt").read_text().strip()
with ReceiptSystem.start(load_settings({})) as system:  # drains at the end
    for user_id in (42, 666):
        pending = system.submit(purchase, user_id)
        for result in pending.result(timeout=30):
            print(result.user_id, result.status, result.reason)
