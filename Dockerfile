# taskmint as a container: hash-pinned requirements, an ordinary user, nothing secret in the image.
# The config, the policy, the sockets and the ledger's directory are mounted. The base is an
# argument: any image with python3 >= 3.11 and its venv module, the same for both stages.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && python3 -m venv /opt/taskmint \
    && /opt/taskmint/bin/python -m pip install --no-cache-dir --require-hashes \
        -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY docs/taskmint.1 docs/
COPY src src
RUN /opt/build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation \
        --wheel-dir dist . \
    && /opt/taskmint/bin/python -m pip install --no-cache-dir --no-deps dist/*.whl \
    && /opt/taskmint/bin/python -m pip uninstall --yes pip

FROM ${BASE}
# Nothing here installs Python packages any more; the base's own package manager is the base's.
RUN if python3 -m pip --version; then python3 -m pip uninstall --yes --break-system-packages pip; fi \
    && rm -rf "$(python3 -c 'import ensurepip; print(*ensurepip.__path__)')"
RUN groupadd --system --gid 10001 taskmint \
    && useradd --system --uid 10001 --gid taskmint --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin taskmint \
    && install -d -o taskmint -g taskmint -m 0750 /run/taskmint \
    && install -d -o taskmint -g taskmint -m 0700 /var/lib/taskmint
COPY --from=build /opt/taskmint /opt/taskmint
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["/opt/taskmint/bin/python", "-I", "-m", "taskmint.client.health"]
# -I: neither PYTHON* variables nor the user's site-packages reach the daemon.
ENTRYPOINT ["/opt/taskmint/bin/python", "-I", "-m", "taskmint"]
CMD ["serve", "--config", "/etc/taskmint/taskmint.yaml"]
