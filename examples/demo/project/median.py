"""The middle of a list of numbers."""


def median(numbers):
    """Half of the numbers are below it, half above; of an even count, the mean of the middle two."""
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    return ordered[middle]
