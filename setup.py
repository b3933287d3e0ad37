"""Builds the extensions; everything else stands in `pyproject.toml`, which cannot describe one yet."""

import sys

from setuptools import Extension, setup

ARGUMENTS = [] if sys.platform == "win32" else ["-O3", "-std=c11"]

setup(
    ext_modules=[
        Extension(
            "bulkjobs._scan",
            sources=["native/scan.c", "native/integers.c", "native/texts.c"],
            depends=["native/fetch.h", "native/integers.h", "native/texts.h"],
            extra_compile_args=ARGUMENTS,
            py_limited_api=True,
        ),
        Extension(
            "bulkjobs._table", sources=["native/table.c"], extra_compile_args=ARGUMENTS, py_limited_api=True
        ),
    ]
)
