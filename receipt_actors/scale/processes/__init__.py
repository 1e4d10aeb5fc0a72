"""One command in several processes: a parent (``group``) supervises workers, each with one ``ReceiptSystem``."""
