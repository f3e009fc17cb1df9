# The millstream daemon. Build: docker build -t millstream .
# Two stages: the toolchain and the C++ libraries' build stay behind, the image has the binary and the
# shared libraries that it links. Both are Debian 12, so that those are of one version.

FROM rust:1.95.0-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        g++ make cmake pkg-config clang libclang-dev libcurl4-openssl-dev libssl-dev libsasl2-dev \
        zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The build folder is a cache of the builder: RocksDB and librdkafka are compiled once, not with every
# change of a source file. The binary is copied out of it, since the folder is not part of the layer.
RUN --mount=type=cache,target=/src/target \
    --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked -p millstream-daemon \
    && install -D target/release/millstream /out/millstream

FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libcurl4 libsasl2-2 libsasl2-modules libsasl2-modules-gssapi-mit libssl3 \
        libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 millstream \
    && useradd --system --uid 10001 --gid millstream --home-dir /var/lib/millstream millstream \
    && install -d -o millstream -g millstream /var/lib/millstream /etc/millstream
COPY --from=build /out/millstream /usr/local/bin/millstream
COPY config/ /etc/millstream/
USER millstream
WORKDIR /var/lib/millstream
# RocksDB, the process id, and with it the identity in the group: lose it and everything is restored
# from the changelogs under a new identity.
VOLUME /var/lib/millstream
EXPOSE 8080
# bash opens the connection itself: the image has no HTTP client.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health/live HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["millstream"]
CMD ["run", "/etc/millstream/account.yaml", "--set", "state_dir=/var/lib/millstream", "--set", "http.listen=0.0.0.0:8080"]
