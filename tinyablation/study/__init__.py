"""The study's run configs: read, measured with this project's instruments, written as its tables.

Configs, batteries and data files keep the format that the study's users have them in.
"""
