"""The actors of the pipeline, one a module; ``protocol`` is what they say to each other.

All are pooled, for nothing in them blocks: clients are called by ``BackgroundCalls``, or on I/O threads (``calls``).
"""
