# Builds with `docker build -t receipt-actors .`; runs `receipt-actors start` as nobody in particular.
FROM python:3.13-slim AS build
COPY setup.cfg pyproject.toml README.rst LICENSE /src/
COPY receipt_actors /src/receipt_actors
RUN python -m venv /opt/receipt-actors && /opt/receipt-actors/bin/pip install --no-cache-dir "/src[admin,fast,storekit2]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home receipt-actors
COPY --from=build /opt/receipt-actors /opt/receipt-actors
# The admin port is for the health check, and for who is in the container. Another address is given by this variable, so
# that the health check finds it. One that is paused or drains is alive: restarting it would help nobody.
ENV PATH=/opt/receipt-actors/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RECEIPT_ACTORS_ADMIN=127.0.0.1:9464
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["receipt-actors", "status", "--quiet", "--alive"]
USER 10001
# A drain takes up to drain_seconds (25): give the container at least 30 before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["receipt-actors"]
CMD ["start"]
