"""What of a parked operation is still to be done, and what it must wait for.

Sending it again must not undo what came later. The store is the judge: it holds what was acknowledged last,
so a value that is not the store's any more has been superseded, whether its successor is delivered or still
on its way. What is sent again goes to the end of its lane.
"""
