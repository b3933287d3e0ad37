"""The suites, one module each; `ROSTER` in `benchmarks.__main__` names them."""
