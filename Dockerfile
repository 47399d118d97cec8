# syntax=docker/dockerfile:1

# The Python and the Debian that the tests run with. To be sure of what you build on, give a digest:
#   docker build --build-arg PYTHON=python:3.11-slim-bookworm@sha256:… .
ARG PYTHON=python:3.11-slim-bookworm

# --- everything that builds; nothing of it but /opt/extauthz is in the image
FROM ${PYTHON} AS build

ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never

WORKDIR /build

# A C compiler for the compiled modules; the Python of the image is built with profile-guided optimisation, as that of Debian.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*

# uv, the tools that make the wheel, and what extauthz and its console need: each by its hash. The console's own packages are 1.1 MB.
COPY requirements/uv.txt requirements/build.txt requirements/console.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes -r requirements/uv.txt \
 && uv venv --no-project tools \
 && VIRTUAL_ENV=tools uv pip install --require-hashes -r requirements/build.txt \
 && uv venv --no-project /opt/extauthz \
 && VIRTUAL_ENV=/opt/extauthz uv pip install --require-hashes -r requirements/console.txt

# A change of ours builds from here on. The package is installed as a wheel, not editable.
COPY pyproject.toml setup.py README.md LICENSE ./
COPY extauthz/ extauthz/
COPY config/ config/
RUN tools/bin/python -m build --no-isolation --wheel --outdir wheels \
 && VIRTUAL_ENV=/opt/extauthz uv pip install --no-deps --no-index wheels/*.whl \
 && /opt/extauthz/bin/extauthz --version

# --- what runs
FROM ${PYTHON}

# The library of the fast transport; without it grpcio would serve. Its version is the one of this Debian.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libnghttp2-14 \
 && rm -rf /var/lib/apt/lists/* \
 # Nothing is installed into a running container. The folders are for volumes: a new one takes over their owner.
 && python -m pip uninstall -y --root-user-action=ignore pip \
 && install -d -o 65532 -g 65532 -m 0755 /etc/extauthz /run/extauthz /var/lib/extauthz

COPY --from=build /opt/extauthz /opt/extauthz

ENV PATH=/opt/extauthz/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# Numbers, so that Kubernetes can see that it is not root. Nothing is written outside of volumes: run it with --read-only.
USER 65532:65532
WORKDIR /etc/extauthz
STOPSIGNAL SIGTERM
EXPOSE 9001 9003 9090 9091

ENTRYPOINT ["extauthz"]
CMD ["serve", "--config", "/etc/extauthz/extauthz.yaml"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="extauthz" \
      org.opencontainers.image.description="Envoy external-authorization sidecar" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
