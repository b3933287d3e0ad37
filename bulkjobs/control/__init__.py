"""Live control: what a person tells a run while it works, through a socket in the run directory.

`protocol` is the words and lines, `sockets` the way to the other side, `server` takes lines and gives answers,
`commands` is what each command does to a session, and `client` asks.
"""
