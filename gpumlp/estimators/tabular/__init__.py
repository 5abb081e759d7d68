"""Estimators for tables as they are, and what makes a network's inputs of their columns.

- Numbers, booleans, time spans (in seconds) and times of the day: a missing or infinite one becomes
  the median, and one more input says where it was missing; then `RobustSmoothScaler`, and beside it
  `PiecewiseLinearEncoder`.
- Dates: the days since 1970, and those of year, month, day, weekday, day of the year, hour, minute
  and second that vary; each of them a number as above.
- Text and categories: two levels are -1 and 1, more have an input each; a missing value that was
  there in fit is a level, infrequent levels are one together, and an unknown one is 0 everywhere.
- Constant and empty columns have no inputs, nor has text that is another in nearly every row, of
  which a warning tells.
"""
