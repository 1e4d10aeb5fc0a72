"""What every HTTP server here has in common: where it listens, how patient it is, and how it ends.

``admin`` serves those who look at a running system, ``receipt-actors notifications`` serves Apple. Both may be met by
whoever else finds the port. Needs uvicorn, but for ``limits``.
"""
