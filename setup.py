"""Builds the compiled modules, and says where the packages are; everything else about the package stands in pyproject.toml.

Without a C compiler, or with EXTAUTHZ_PURE=1, the package is built without them: the sidecar then serves with grpcio.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, find_namespace_packages, setup

MODULES = (
    "extauthz.adapters.decision_log._lines",
    "extauthz.adapters.decision_log._runs",
    "extauthz.adapters.envoy._reader",
    "extauthz.transport.grpc._session",
)

sources = [Extension(name, [f"{name.replace('.', '/')}.pyx"], extra_compile_args=["-g0"]) for name in MODULES]
extensions = [] if os.environ.get("EXTAUTHZ_PURE") == "1" else cythonize(sources, build_dir="build/cython")
for extension in extensions:
    # cythonize does not hand this on. Without a compiler the package is built, and says so.
    extension.optional = True
# The examples stand once in the tree, in config/, and in the package as well, for `extauthz init`.
examples = [f"extauthz.examples{part}" for part in ("", ".routes", ".schema", ".tests")]
packages = [*find_namespace_packages(include=["extauthz", "extauthz.*"]), *examples]
setup(packages=packages, package_dir={"extauthz.examples": "config"}, ext_modules=extensions)
