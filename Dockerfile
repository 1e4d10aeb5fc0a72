# Builds with `docker build --platform linux/amd64 -t receipt-actors .` (linux/arm64 for ARM64); runs `receipt-actors
# start` as nobody in particular, who writes no file: its root file system may be read-only, and it needs no capability.
#
# The base is named by the release, and not by a digest: what is built today has today's security fixes, with nobody to
# remember. What is run is pinned, as it was built: by a tag that can't be moved, or by its digest (doc/deploy-aws.rst).
FROM python:3.13-slim-trixie AS build
COPY setup.cfg pyproject.toml README.rst LICENSE /src/
COPY receipt_actors /src/receipt_actors
# Without pip of its own, which nobody needs any more; with byte code, which nobody can write any more.
RUN python -m venv --without-pip /opt/receipt-actors && \
    pip --python /opt/receipt-actors install --no-cache-dir /src

FROM python:3.13-slim-trixie
RUN useradd --system --uid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin receipt-actors
COPY --from=build /opt/receipt-actors /opt/receipt-actors
# The admin port is for the health check, and for who is in the container. Another address is given by this variable, so
# that the health check finds it. One that is paused or drains is alive: restarting it would help nobody.
ENV PATH=/opt/receipt-actors/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RECEIPT_ACTORS_ADMIN=127.0.0.1:9464
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s --retries=3 CMD ["receipt-actors", "status", "--quiet", "--alive"]
# By number, as Kubernetes wants to see that it is not root.
USER 10001
# A drain takes up to drain_seconds (25): give the container at least 30 before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["receipt-actors"]
CMD ["start"]
