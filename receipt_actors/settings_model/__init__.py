"""What a setting is: below all rooms that have settings of their own. ``receipt_actors.settings`` has them all.

``fields``   the types of values, and ``Setting``: one setting as people meet it
``model``    ``SomeSettings``, from which every choice of settings derives; the faults that it raises
``removed``  settings that were removed, and what does their work now
``sources``  ``SourceSettings``: which queues receipts are taken from, and what differs from one to the next
"""
