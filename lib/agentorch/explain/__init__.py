"""Why a job waits or failed: facts first, then sentences.

`gather` reads the facts from files alone: it makes and locks nothing. `explain` and `advice` turn
facts into text and are pure, so that every state and failure class has a golden test.
"""
