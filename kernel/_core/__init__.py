"""Values and small contracts that every other wing shares.

Nothing here starts, waits for the outside or reads a file. A message is an `Envelope`, what becomes of it an `Outcome`,
what happens an `Event`, what is to run a `Plan`. Read `spec.py` first: the plan names everything else.
"""
