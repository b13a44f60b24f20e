"""Reading back what a journal that was restored from a backup holds as undelivered.

Another generation of the journal may have delivered it, and written newer values since, which are known
nowhere but in the workspace. What cannot be changed (points, params, runs, versions) is there or is not. What
the last write wins (tags, status, descriptions, files) is sent only where it cannot overwrite anything newer:
where the workspace shows nothing, or where the other generation did not get that far. What cannot be decided
is parked.
"""
