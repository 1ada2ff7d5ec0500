# The commands, without a service: docker build -t amqpflow . ; docker run --rm -v "$PWD:/app:ro" amqpflow validate FILE
# A service's own image installs amqpflow beside its code: examples/orders/k8s/Dockerfile.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY amqpflow amqpflow
RUN python -m venv /opt/amqpflow \
    && /opt/amqpflow/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt .

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home amqpflow
COPY --from=build /opt/amqpflow /opt/amqpflow
ENV PATH=/opt/amqpflow/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001
ENTRYPOINT ["amqpflow"]
CMD ["--help"]
