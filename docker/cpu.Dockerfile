# `lorax-js serve` on the CPU. Built by scripts/build-images.mjs, from the root of the checkout.
# Both images need Node on the path, the first one npm and apt too. The second must not have an older
# glibc than the first.
ARG BUILD_IMAGE=node:24-bookworm-slim
ARG RUNTIME_IMAGE=node:24-bookworm-slim

FROM ${BUILD_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils ca-certificates cmake g++ ninja-build \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN node scripts/pack-prebuilt.mjs --release --out /packed
# As on a user's machine, where nothing is compiled. What only a source build needs stays here.
WORKDIR /app
RUN npm install --no-audit --no-fund --omit=peer /packed/*.tgz \
 && node node_modules/lorax-js/dist/cli.mjs doctor \
 && test ! -e node_modules/lorax-js/build \
 && rm -rf node_modules/lorax-js/native

FROM ${RUNTIME_IMAGE}
# Models and adapters that are fetched: mount a volume, or every container fetches them again. Group 0 may
# write too, for platforms that choose the user.
RUN install -d -o 10001 -g 0 -m 0775 /cache
COPY --from=build /app /app
COPY docker/health.mjs /app/
ENV NODE_ENV=production \
    PATH=/app/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache \
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
