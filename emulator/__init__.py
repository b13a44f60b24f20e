"""A local Azure Machine Learning workspace, good enough for Microsoft's own clients.

It shares no code with `server`: a mistake made twice would hide.
"""
