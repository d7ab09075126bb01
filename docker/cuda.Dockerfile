# `lorax-js serve` on NVIDIA GPUs of compute capability 8.0 and newer (and on the CPU where there is none).
# Built by scripts/build-images.mjs, from the root of the checkout. NODE_IMAGE gives Node and npm to the
# other two, so its glibc must not be newer than theirs; CUBLAS is the runtime image's package.
ARG NODE_IMAGE=node:24-bookworm-slim
ARG BUILD_IMAGE=nvidia/cuda:12.9.1-devel-ubuntu24.04
ARG RUNTIME_IMAGE=nvidia/cuda:12.9.1-base-ubuntu24.04

FROM ${NODE_IMAGE} AS node

FROM ${BUILD_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils ca-certificates cmake g++ ninja-build \
 && rm -rf /var/lib/apt/lists/*
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /src
COPY . .
RUN node scripts/pack-prebuilt.mjs --release --out /packed
# As on a user's machine, where nothing is compiled. What only a source build needs stays here.
WORKDIR /app
RUN npm install --no-audit --no-fund --omit=peer /packed/*.tgz \
 && test -e node_modules/@lorax-js/linux-*-cuda/lorax_cuda.so \
 && node node_modules/lorax-js/dist/cli.mjs doctor \
 && test ! -e node_modules/lorax-js/build \
 && rm -rf node_modules/lorax-js/native

FROM ${RUNTIME_IMAGE}
ARG CUBLAS=libcublas-12-9
# cuBLASLt is opened at run time; the driver comes from the host.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ${CUBLAS} ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/*
# Models and adapters that are fetched, and what was measured of this GPU: mount a volume, or every
# container does it again. Group 0 may write too, for platforms that choose the user.
RUN install -d -o 10001 -g 0 -m 0775 /cache
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=build /app /app
COPY docker/health.mjs /app/
ENV NODE_ENV=production \
    PATH=/app/node_modules/.bin:/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LORAX_HOST=0.0.0.0 \
    LORAX_PORT=8000
VOLUME /cache
USER 10001:0
# Where lorax-js.config.mjs is looked for, and where 'lorax-js/server' is found from it.
WORKDIR /app
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["node", "/app/health.mjs"]
# Becomes Node itself, as process 1: it handles SIGTERM, and reaps the one child that --isolate starts.
ENTRYPOINT ["lorax-js", "serve"]
