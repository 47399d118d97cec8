"""Builds the compiled modules; everything else about the package stands in pyproject.toml.

Without a C compiler, or with EXTAUTHZ_PURE=1, the package is built without them: the sidecar then serves with grpcio.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ("extauthz.adapters.decision_log._runs", "extauthz.adapters.envoy._reader", "extauthz.transport.grpc._session")

extensions = [Extension(name, [f"{name.replace('.', '/')}.pyx"], extra_compile_args=["-g0"], optional=True) for name in MODULES]
setup(ext_modules=[] if os.environ.get("EXTAUTHZ_PURE") == "1" else cythonize(extensions, build_dir="build/cython"))
