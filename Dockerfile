# The proxy as one small image: `docker build -t mlflow-azureml-proxy .`
# Everything it keeps is under /data; the rest of its file system may be read-only (with /tmp a tmpfs).

FROM python:3.11.14-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/mlproxy

# The dependencies first: this layer is built anew only when they change.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['otel'], sep='\n')" > requirements.txt \
    && /opt/mlproxy/bin/pip install --constraint constraints.txt --requirement requirements.txt

COPY README.md LICENSE ./
COPY server server
COPY emulator emulator
COPY migrations migrations
RUN pip wheel --no-deps --wheel-dir wheels . \
    && /opt/mlproxy/bin/pip install --no-deps wheels/*.whl \
    && /opt/mlproxy/bin/pip check
RUN MLPROXY_UI_DIR=/opt/mlproxy/ui /opt/mlproxy/bin/mlproxy ui install

FROM python:3.11.14-slim-bookworm AS runtime
LABEL org.opencontainers.image.title="mlflow-azureml-proxy" \
      org.opencontainers.image.description="A tracking proxy between stock MLflow clients and an Azure ML workspace" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 mlproxy \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin mlproxy \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=builder /opt/mlproxy /opt/mlproxy
ENV PATH=/opt/mlproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLPROXY_HOST=0.0.0.0 \
    MLPROXY_PORT=5000 \
    MLPROXY_DATA_DIR=/data \
    MLPROXY_UI_DIR=/opt/mlproxy/ui
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://localhost:' + os.environ['MLPROXY_PORT'] + os.environ.get('MLPROXY_PATH_PREFIX', '') + '/health/live', timeout=4)"]
ENTRYPOINT ["mlproxy"]
CMD ["serve"]
