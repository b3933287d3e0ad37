"""Small programs that measure one thing inside of a process of their own and print it as one JSON object."""
