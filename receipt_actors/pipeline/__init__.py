"""The actors of the pipeline, one a module; ``protocol`` is what they say to each other.

==========================  =======  ==================================================================================
actor                       runtime  because
==========================  =======  ==================================================================================
``consumer``                thread   it blocks in the long poll of a receive
everything else             pooled   nothing in it blocks: the calls of gateways and batchers run on their I/O threads
==========================  =======  ==================================================================================
"""
