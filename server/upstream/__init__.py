"""The Azure Machine Learning workspace as seen from here: addresses, tokens, one module per noun.

Nothing outside this package knows httpx or azure. Every call ends in an answer or in an
`UpstreamFailure` that says, in its verdict, what is to be done about it.
"""
