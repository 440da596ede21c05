"""Whole functions, recorded once and placed as one: what ``ac.pipeline`` is made of.

Data flows down: ``capture`` (what a function reads besides its arguments) and ``stand_in`` (arrays without data that
record) make a ``graph``; ``fuse`` joins its element-wise neighbours; ``costs`` and ``place`` choose a device for each
operation; ``execute`` turns that into steps; ``calls`` tells one call from another; ``decorator`` is the front door.
"""
