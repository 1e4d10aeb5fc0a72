"""What every HTTP server here has in common: where it listens, how patient it is, and how it ends.

``admin`` serves operators and scrapers, ``receipt-actors notifications`` serves Apple. Strangers may find either port.
Needs uvicorn, but for ``limits``.
"""
