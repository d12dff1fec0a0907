"""Secrets in text: the forms that they have, and the text without them. Pure.

What was found is never repeated, in no message and no file: a finding names its kind and its place.
`patterns` has the tables of known forms, `redactor` is what everybody else uses.
"""
