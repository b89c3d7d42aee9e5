"""The command line: one file for each command. Heavy imports happen when a command runs, so that --help is quick."""
