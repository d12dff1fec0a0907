"""Pages about jobs for people: one HTML file each, which loads nothing from anywhere.

Text that agents wrote reaches a page as text only: the templates escape every value, none is ever
the name of an attribute or element, an id, a class or an address, and no page has a script.

Start reading with `gather` (a job's files as values), then `page` (the templates).
"""
