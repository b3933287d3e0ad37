"""The contenders: short programs as people write them, each in the configuration that its documentation shows.

Each is given the same: a file of ids, the ids of a chunk, the address, the limit as requests and seconds, and the
token in the environment. None of them is asked what it did; only the service's books count.
"""
