"""The HTML pages about jobs: one file each, which loads nothing from anywhere.

Invariant: text that agents wrote reaches a page as text only. The templates escape every value, no
value is ever the name of an element or attribute, an id, a class or an address, and no page has a
script.

Start reading with `gather` (a job's files as values), then `page` (the templates).
"""
