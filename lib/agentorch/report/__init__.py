"""Pages for people about jobs: one HTML file each, that asks nobody for anything.

    words       figures, moments and text as a page shows them
    markup      the little of Markdown that a report is shown with
    patches     a patch, by files and lines, bounded
    waits       the times in which a job waited
    timeline    where attempts are on a line of time
    gathering   a job's files as values
    overview    many jobs as values, and their charts
    page        the templates

What agents wrote reaches a page as text only: every value is escaped by the templates, none is
ever an attribute's name, an element's, an id, a class or an address, and no page has a script.
"""
