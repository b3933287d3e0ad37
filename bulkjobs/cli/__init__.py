"""The command line: arguments, signals and exit codes; all else is the library's. One module a command."""
