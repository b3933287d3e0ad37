"""What goes on the wire (`request`) and what comes back (`answer`). Nothing in here does I/O."""
