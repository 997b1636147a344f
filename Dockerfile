# docker build -t hyper .
# docker run --rm -v DATASET:/data:ro -v RESULTS:/out hyper /data /out participant
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/hyper_bids
WORKDIR /src
# Packages first: a change of the source leaves their layer as it is.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['faces'], sep='\n')" > requirements.txt \
    && /opt/hyper_bids/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE NOTICE version run.py ./
COPY hyper_bids hyper_bids
RUN /opt/hyper_bids/bin/pip install --no-cache-dir --no-deps .

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hyper_bids" \
      org.opencontainers.image.description="A BIDS App that reconstructs what people saw from their brain activity" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/hyper_bids /opt/hyper_bids
# Any user, no home and a read-only root will do: what libraries cache goes below /tmp.
ENV PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    PATH=/opt/hyper_bids/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /tmp
ENTRYPOINT ["/opt/hyper_bids/bin/hyper_bids"]
