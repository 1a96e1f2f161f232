# Holdfast without a PostgreSQL of its own: run it with DATABASE_URL. compose.yaml shows a whole set-up.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# The query cache in .sqlx stands in for a database, so nothing but the crates is needed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked && cp target/release/holdfast /holdfast

FROM debian:bookworm-slim
COPY --from=build /holdfast /usr/local/bin/holdfast
COPY LICENSE /usr/share/doc/holdfast/LICENSE
# Nobody in particular: it owns nothing, and with DATABASE_URL it writes nothing.
USER 10001:10001
# Loopback inside a container reaches nobody. While no token was ever created this address is refused: create one first (holdfast
# migrate, holdfast token create), or say --insecure and publish the port on the host's loopback only.
ENV BIND_ADDR=0.0.0.0:8000 \
    LOG_FORMAT=json
EXPOSE 8000
# A stop takes up to 18 s (docs/OPERATIONS.md): docker stop --time 25, or stop_grace_period in a compose file.
# Ready means that the go-live state was read within the last 2 s.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["holdfast", "healthcheck", "--live"]
ENTRYPOINT ["holdfast"]
