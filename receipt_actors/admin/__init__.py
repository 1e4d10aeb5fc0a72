"""The admin port: an HTTP server on a thread of its own that shows a running system, and passes on what is asked of it.

It sees the system as a ``SystemControl`` only, and looks at most once at a time, however many clients ask. It can't
hold up the pipeline: its calls run on a few threads of their own, every queue is bounded, and what does not fit is
refused.
"""
