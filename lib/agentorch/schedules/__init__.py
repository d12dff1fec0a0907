"""Jobs at times of their own: cron expressions, timers, the files of schedules/, their runs.

One bad schedule harms no other, and a run that was missed is made up once. `cron` and `timers` are
pure; `files` reads the folder; `fire` submits a run's job.
"""
